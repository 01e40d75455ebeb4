"""Tests for alarms: the message of each alarm is a single sentence."""

from typing import Any

import pytest

from console.alarms import Alarm, Down, of_certificate, of_health, of_hosts
from console.hosts import Host, Loss

EDGE = Host("edge", "198.19.20.10", "www.example.com", "near", "edge", without="nothing answers")
ROOTS = [Host(f"root-{x}", "198.19.10.53", f"{x}.root-servers.test", "root-a", "nameserver", f"no {x}") for x in "ab"]
BOTH = Loss(frozenset({"root-a", "root-b"}), "no root is left")
#: Time of the alarms, in seconds since the epoch: 2026-11-24 22:00:00 UTC.
AT = 1795557600.0


def certificate(**changed: Any) -> dict[str, Any]:
    return {
        "seconds_left": 1200.0, "used": 0.3, "renew_at": 0.5, "next_renewal": AT, "not_after": AT + 1200,
        "last_error": "", "names": ["www.example.com"], **changed,
    }  # fmt: skip


def test_a_host_that_is_down_is_reported_with_time_reason_and_consequence() -> None:
    (alarm,) = of_hosts([Down(EDGE, AT, "connection refused", seen=True)], [])
    assert alarm.text == "edge has been down since 22:00:00 UTC: connection refused — nothing answers"
    assert alarm.level == "bad"


def test_a_host_that_never_answered_is_not_called_down() -> None:
    (alarm,) = of_hosts([Down(EDGE, AT, "no answer within 1.5 s", seen=False)], [])
    assert alarm.text.startswith("edge has not answered since 22:00:00 UTC")


def test_hosts_with_a_loss_in_common_are_one_sentence() -> None:
    down = [Down(host, AT + index, "connection refused", seen=True) for index, host in enumerate(ROOTS)]
    (alarm,) = of_hosts(down, [BOTH])
    assert alarm.text == "root-a and root-b have been down since 22:00:01 UTC: connection refused — no root is left"


def test_one_of_these_hosts_alone_has_its_own_consequence() -> None:
    (alarm,) = of_hosts([Down(ROOTS[0], AT, "", seen=True)], [BOTH])
    assert alarm.text == "root-a has been down since 22:00:00 UTC — no a"


def test_only_failing_checks_are_named() -> None:
    checks = {"zones": {"ok": False, "detail": "line 3"}, "listener": {"ok": True, "detail": "x"}}
    expected = "edge has been failing its health checks since 22:00:00 UTC: zones: line 3"
    assert of_health(EDGE, checks, AT).text == expected


def test_a_service_without_checks_is_reported_as_such() -> None:
    assert of_health(EDGE, {}, AT).why == "no check has passed yet"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({}, None, id="good"),
        pytest.param({"used": 0.59}, None, id="due-but-not-late"),
        pytest.param(
            {"used": 0.61},
            "the certificate of edge has been due for renewal since 22:00:00 UTC — it expires in 20 min",
            id="overdue",
        ),
        pytest.param(
            {"last_error": "no such name"},
            "the certificate of edge could not be renewed: no such name — it is valid for another 20 min",
            id="failed-in-time",
        ),
        pytest.param(
            {"seconds_left": 0.0, "not_after": AT},
            "the certificate of edge expired at 22:00:00 UTC — clients reject www.example.com",
            id="expired",
        ),
        pytest.param({"seconds_left": None}, "edge has no certificate", id="none"),
        pytest.param({"used": None, "renew_at": None}, None, id="life-unknown"),
        pytest.param({"seconds_left": None, "names": []}, "edge has no certificate", id="no-name-either"),
        pytest.param(
            {"seconds_left": None, "names": ["rsa.example.com"]},
            "rsa.example.com has no certificate",
            id="additional-certificate",
        ),
    ],
)
def test_a_certificate(changed: dict[str, Any], expected: str | None) -> None:
    alarm = of_certificate(EDGE, certificate(**changed))
    assert (alarm and alarm.text) == expected


@pytest.mark.parametrize(
    ("left", "words"), [(90, "90 s"), (1200, "20 min"), (7300, "2 h")], ids=["seconds", "minutes", "hours"]
)
def test_time_to_expiry_has_a_suitable_unit(left: float, words: str) -> None:
    alarm = of_certificate(EDGE, certificate(seconds_left=float(left), used=0.9))
    assert alarm is not None
    assert alarm.means == f"it expires in {words}"


def test_the_page_gets_the_parts_and_the_whole_sentence() -> None:
    alarm = Alarm("bad", "edge", "expired", AT, "why", "means", "at")
    assert alarm.as_dict() == {
        "level": "bad", "subject": "edge", "what": "expired", "since": AT, "when": "at", "why": "why",
        "means": "means", "text": "edge expired at 22:00:00 UTC: why — means",
    }  # fmt: skip
