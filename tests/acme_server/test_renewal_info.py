"""Tests for suggested renewal windows, without a server."""

from dataclasses import replace

import pytest

from acme_server.renewal_info import MIN_ASK_AGAIN, ask_again, window
from authority import Certificate, Recall

CERTIFICATE = Certificate("0a", None, ("www.example.com",), 900.0, 1300.0, 1000.0, "")
EARLY, LATE = (
    Recall(1010.0, (), "", start, start + 20.0, "https://ca.example.com/recall") for start in (1050.0, 1250.0)
)


@pytest.mark.parametrize(
    ("certificate", "moved", "recall", "expected"),
    [
        (CERTIFICATE, None, None, (1200.0, 1212.0, "")),
        (CERTIFICATE, 1100.0, None, (1100.0, 1130.0, "")),
        (CERTIFICATE, None, EARLY, (1050.0, 1070.0, EARLY.url)),
        (CERTIFICATE, None, LATE, (1200.0, 1212.0, "")),
        (CERTIFICATE, 1040.0, EARLY, (1040.0, 1070.0, "")),
        (replace(CERTIFICATE, revoked=1020.0), None, None, (1019.0, 1020.0, "")),
        (replace(CERTIFICATE, revoked=1020.0), None, EARLY, (1019.0, 1020.0, EARLY.url)),
    ],
    ids=[
        "two-thirds",
        "new-issuer",
        "recalled",
        "recalled-later",
        "new-issuer-first",
        "revoked",
        "revoked-and-recalled",
    ],
)
def test_the_window_is_the_earliest_that_applies(
    certificate: Certificate, moved: float | None, recall: Recall | None, expected: tuple[float, float, str]
) -> None:
    start, end, url = window(certificate, moved, recall)
    assert (start, end) == pytest.approx(expected[:2])
    assert url == expected[2]


def test_clients_ask_again_after_six_hours_of_47_days() -> None:
    assert ask_again(replace(CERTIFICATE, not_after=1000.0 + 47 * 86400)) == 6 * 3600
    assert ask_again(replace(CERTIFICATE, not_after=1010.0)) == MIN_ASK_AGAIN
