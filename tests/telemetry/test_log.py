"""Tests for the limit on log lines."""

import pytest

from telemetry import log


def test_a_bounded_logger_writes_five_lines_per_event_and_second_and_counts_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    logger = log.bounded("flood", lambda: now)
    for number in range(30):
        logger.warning("refused", number=number)
    logger.warning("other")
    now = 101.0
    logger.warning("refused", number=30)
    logger.warning("refused", number=31)
    lines = [(record.message, record.__dict__["fields"]) for record in caplog.records]
    assert lines == [
        *(("refused", {"number": number}) for number in range(5)),
        ("other", {}),
        ("refused", {"number": 30, "suppressed": 25}),
        ("refused", {"number": 31}),
    ]
