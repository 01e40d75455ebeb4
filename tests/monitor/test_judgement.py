"""Tests for the judgement of endpoints and for the state machine of alarms, with simulated time."""

import time
from dataclasses import replace

import pytest

from authority import Issuer, issue_leaf, new_key
from monitor.alarms import AGREEMENT, HEARTBEAT, INVENTORY, MISSED, Alarms, Subject, unwatched
from monitor.judgement import Evidence, Finding, Seen, State, covers, judge
from tests.peers import Papers, papers

__all__ = ["papers"]
NOW = time.time()
GOOD = Evidence(revoked=False, revocation="CRL 1 of 0 entries")


def leaf(issuer: Issuer, life: float, name: str = "www.example.com", begin: float = 0.0) -> Seen:
    """Return a synthetic result of a prober: a certificate for *name*, issued *begin* seconds after `NOW`."""
    made = issue_leaf(issuer, new_key().public_key(), [name], NOW + begin, life, 0.0)
    return Seen(leaf=made, issuers=(issuer.certificate,))


@pytest.mark.parametrize(
    ("age", "state", "says"),
    [
        (-10.0, State.ALARM, "valid only in"),
        (0.0, State.OK, "5 minutes left"),
        (0.71 * 300, State.OK, "87 s left"),
        (0.73 * 300, State.ALARM, "overdue"),
        (301.0, State.ALARM, "expired"),
    ],
    ids=["not-yet", "new", "in-time", "overdue", "expired"],
)
def test_a_certificate_is_judged_by_the_share_of_its_life(papers: Papers, age: float, state: State, says: str) -> None:
    findings = {f.check: f for f in judge("www.example.com", leaf(papers.issuer, 300.0), GOOD, int(NOW) + age)}
    assert findings["expiry"].state is state
    assert says in findings["expiry"].detail


def test_an_intermediate_that_ends_before_the_leaf_is_an_alarm(papers: Papers) -> None:
    short = leaf(papers.issuer, 100.0).leaf
    assert short is not None
    long = replace(leaf(papers.issuer, 300.0), issuers=(short,))
    findings = {f.check: f for f in judge("www.example.com", long, GOOD, NOW)}
    assert (findings["expiry"].state, "ends" in findings["expiry"].detail) == (State.ALARM, True)


@pytest.mark.parametrize(
    ("evidence", "check", "state"),
    [
        (GOOD, "revocation", State.OK),
        (Evidence(revoked=True), "revocation", State.ALARM),
        (Evidence(revoked=None, revocation="no answer"), "revocation", State.UNKNOWN),
        (Evidence(revoked=False, disk_error="pair.pem: Permission denied"), "disk", State.UNKNOWN),
    ],
    ids=["good", "revoked", "no-CRL", "unreadable-file"],
)
def test_what_cannot_be_checked_is_unknown(papers: Papers, evidence: Evidence, check: str, state: State) -> None:
    findings = {f.check: f.state for f in judge("www.example.com", leaf(papers.issuer, 300.0), evidence, NOW)}
    assert findings[check] is state


def test_a_newer_certificate_on_disk_means_that_the_server_has_not_loaded_it(papers: Papers) -> None:
    served, renewed = leaf(papers.issuer, 300.0), leaf(papers.issuer, 300.0)
    for on_disk, state in ((served.leaf, State.OK), (renewed.leaf, State.ALARM)):
        findings = judge("www.example.com", served, Evidence(revoked=False, on_disk=on_disk), NOW)
        assert [f.state for f in findings if f.check == "disk"] == [state]


def test_without_a_certificate_only_the_connection_is_judged() -> None:
    findings = judge("www.example.com", Seen(error="connection refused"), GOOD, NOW)
    assert findings == [Finding("connection", State.ALARM, "connection refused")]


@pytest.mark.parametrize(
    ("names", "host", "good"),
    [
        (["www.example.com"], "WWW.example.com.", True),
        (["*.example.com"], "www.example.com", True),
        (["*.example.com"], "a.www.example.com", False),
        (["*.example.com"], "example.com", False),
        (["example.com"], "www.example.com", False),
        ([], "www.example.com", False),
    ],
    ids=["case", "wildcard", "two-labels", "apex", "other", "none"],
)
def test_names_match_as_in_rfc_9525(names: list[str], host: str, good: bool) -> None:
    assert covers(names, host) is good


# --- alarms -----------------------------------------------------------------------------------------------------------


def found(state: State, check: str = "expiry") -> list[Finding]:
    return [Finding(check, state, str(state))]


def test_an_alarm_is_reported_when_it_begins_and_when_it_ends() -> None:
    alarms = Alarms()
    rounds = [State.OK, State.ALARM, State.ALARM, State.UNKNOWN, State.OK, State.OK]
    changes = [alarms.report(n, "a:443", {"one": found(state)}) for n, state in enumerate(rounds)]
    assert [[c.active for c in each] for each in changes] == [[], [True], [], [], [False], []]
    assert repr(alarms) == "<Alarms active=0 unknown=0 peers=0>"


def test_probers_that_disagree_twice_in_a_row_are_an_alarm() -> None:
    alarms = Alarms()
    split = {"one": found(State.OK), "two": found(State.ALARM)}
    agreement = Subject("a:443", AGREEMENT)
    for number, active in enumerate((False, True, True)):
        alarms.report(number, "a:443", split)
        assert (agreement in alarms.active) is active
    alarms.report(3, "a:443", {"one": found(State.ALARM), "two": found(State.ALARM)})
    assert agreement not in alarms.active


def test_a_monitor_that_falls_silent_is_an_alarm_until_it_is_heard_again() -> None:
    alarms = Alarms()
    assert alarms.tick(1e9) == []
    alarms.heard(100.0, "other", 10.0)
    assert alarms.tick(100.0 + MISSED * 10.0) == []
    assert [(c.subject, c.active) for c in alarms.tick(131.0)] == [(Subject("other", HEARTBEAT), True)]
    assert alarms.tick(140.0) == []
    assert [c.active for c in alarms.heard(141.0, "other", 10.0)] == [False]


def test_a_certified_name_that_no_endpoint_has_is_named_until_it_is_monitored() -> None:
    alarms, certified = Alarms(), [("www.example.com", "1"), ("forgotten.example.com", "2"), ("www.example.com", "3")]
    missing = unwatched(certified, ["www.example.com"])
    assert missing == {"forgotten.example.com": "2"}
    assert [c.subject for c in alarms.inventory(1.0, missing)] == [Subject("forgotten.example.com", INVENTORY)]
    assert alarms.inventory(2.0, missing) == []
    assert [c.active for c in alarms.inventory(3.0, {})] == [False]


def test_a_channel_that_fails_is_an_alarm() -> None:
    alarms = Alarms()
    changes = [alarms.channel(n, "http://a/", failure) for n, failure in enumerate(["", "refused", "refused", ""])]
    assert [[c.active for c in each] for each in changes] == [[], [True], [], [False]]
