"""Configuration for all tests: hypothesis profiles, a summary of missing judges, and logging reset after each test."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import judges

# Hypothesis profiles.  "free", the default: new inputs in each run, and no deadline, because a busy machine would
# exceed it.  "ci", built into hypothesis and the default if CI is set: the same inputs in each run.  "fuzz": ten
# thousand inputs per test (`make fuzz`).
settings.register_profile("free", derandomize=False, deadline=None, print_blob=True)
settings.register_profile("fuzz", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "free"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped because a judge is missing, and how to install it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    for line in judges.summary(reasons):
        terminalreporter.write_line(line, yellow=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Exit with 5 (no tests) instead of 0 if system tests were selected but none ran, so the lab was not tested."""
    selected = any(item.get_closest_marker("system") for item in getattr(session, "items", ()))
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not selected or reporter is None or session.exitstatus != pytest.ExitCode.OK:
        return
    if not reporter.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
