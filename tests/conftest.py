"""What all tests share: how hard hypothesis tries, and that a program run in a test leaves no log handler behind."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Its defaults in the suite: new inputs each time, and where CI is set the same ones each time (its profile "ci"), so that
# a change is judged by what it changed.  Ten thousand new inputs each under `make fuzz`.
settings.register_profile("fuzz", max_examples=10_000, deadline=None)
if "HYPOTHESIS_PROFILE" in os.environ:
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
