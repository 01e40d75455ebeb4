"""What all tests share: how hard hypothesis tries, and that a program run in a test leaves no log handler behind."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Its defaults in the suite, ten thousand inputs each under `make fuzz`.

settings.register_profile("fuzz", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
