"""Tests for taps: off by default, limited in time and size, listed in /health while on."""

import pytest

from telemetry import AdminError, Telemetry
from telemetry.admin import Request
from telemetry.tap import MAX_BYTES, Tap, merged


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("edge")


def ask(tap: Tap, body: bytes) -> dict:
    return tap._start(Request("POST", "/admin/tap", body=body))


def test_nothing_is_recorded_until_it_is_switched_on(telemetry: Telemetry) -> None:
    tap = Tap(telemetry)
    tap.record("a", b"x")
    assert tap._report() == {"on": False, "records": [], "dropped": 0}
    ask(tap, b'{"seconds": 5}')
    tap.record("a", b"x")
    assert tap._report()["records"] == [{"where": "a", "hex": "78"}]
    assert telemetry._unusual() == ["tap records plaintext"]
    tap._stop(Request("DELETE", "/admin/tap"))
    tap.record("a", b"y")
    assert tap._report() == {"on": False, "records": [{"where": "a", "hex": "78"}], "dropped": 0}
    assert telemetry._unusual() == []


def test_it_ends_by_itself_and_has_a_size_limit(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    tap, now = Tap(telemetry), 100.0
    monkeypatch.setattr(telemetry.clock, "monotonic", lambda: now)
    ask(tap, b'{"seconds": 5}')
    tap.record("a", bytes(MAX_BYTES))
    tap.record("a", b"x")
    assert tap._report()["dropped"] == 1
    now = 105.0
    assert not tap.on
    assert telemetry._unusual() == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"seconds": 0}', b'{"seconds": 121}', b'{"seconds": true}'])
def test_a_bad_request_is_refused(telemetry: Telemetry, body: bytes) -> None:
    with pytest.raises(AdminError, match="expected"):
        ask(Tap(telemetry), body)


def test_reports_of_workers_are_merged() -> None:
    record = {"where": "a", "hex": "00"}
    one = {"on": True, "records": [record], "dropped": 1}
    assert merged([one, one]) == {"on": True, "records": [record, record], "dropped": 2}
