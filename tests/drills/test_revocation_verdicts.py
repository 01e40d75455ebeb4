"""Tests for the verdicts of drills on revocation, compromise and monitoring, on synthetic runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from acme_server import wrong_crl
from drills import blind_monitor, client_auth_gone
from drills.blind_monitor import BlindMonitor
from drills.client_auth_gone import ClientAuthGone
from drills.leaf_compromise import Incident, LeafCompromise
from drills.paths import NEW, PATHS, POOLED, RESUMED, Tried
from drills.rehearsal import HOST
from drills.revocation_data import CHECK, KINDS, Ageing, Client, RevocationData, Served
from drills.revoke_client import ORIGIN, RevokeClient, Revoked
from drills.watch import Alarm
from experiments import Verdict
from tests.drills.synthetic import Ways, break_requests, prepared, stage, verdict

# --- D11 revoke-client ------------------------------------------------------------------------------------------------


def revoked(at: float, *, refused_after: float | None = 2.0) -> Revoked:
    """Return a synthetic client that is revoked at *at* and refused *refused_after* seconds later (never if None)."""
    one = Revoked(Ways(), "ab", at, at + 7.0, "certificate revoked")
    for number in range(80):
        moment = at - 1.0 + number / 10
        bad = refused_after is not None and moment > at + refused_after
        one.ways.tried += [Tried(moment, path, "status 403 Forbidden" if bad else "") for path in PATHS]
    return one


def accepted_again_on(path: str) -> Callable[[RevokeClient], None]:
    return lambda e: e.revoked[0].ways.tried.append(Tried(e.revoked[0].at + 6.5, path, ""))


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: e.revoked.append(revoked(20.0, refused_after=None)), {f"exposure, {path}" for path in PATHS}),
        (accepted_again_on(POOLED), {f"exposure, {POOLED}"}),
        (accepted_again_on(RESUMED), {f"exposure, {RESUMED}"}),
        (lambda e: e.revoked[0].ways.tried.insert(12, Tried(6.0, NEW, "reset")), {"refused with status 403"}),
        (lambda e: setattr(e.revoked[0], "judged", "good"), {"OpenSSL with the CRL agrees"}),
    ],
    ids=["good", "lost", "never-refused", "pooled-goes-on", "resumed-goes-on", "another-reason", "not-in-the-CRL"],
)
def test_revoke_client(tmp_path: Path, change: Callable[[RevokeClient], object], failed: set[str]) -> None:
    experiment, run = prepared(RevokeClient, tmp_path, rate=20)
    assert isinstance(experiment, RevokeClient)
    experiment.stage = stage(run, 30, 20)
    experiment.began, experiment.ended = 4.0, 28.0
    experiment.revoked = [revoked(5.0), revoked(12.0, refused_after=4.5)]
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_client_that_is_refused_before_its_revocation_makes_the_run_invalid(tmp_path: Path) -> None:
    experiment, run = prepared(RevokeClient, tmp_path, rate=20)
    assert isinstance(experiment, RevokeClient)
    experiment.stage = stage(run, 30, 20)
    experiment.began, experiment.ended = 4.0, 28.0
    experiment.revoked = [revoked(5.0, refused_after=-0.5)]
    assert verdict(run, experiment)[0] is Verdict.INVALID


# --- D10 revocation-data ----------------------------------------------------------------------------------------------


def test_the_kinds_of_defective_lists_are_those_of_the_fault() -> None:
    assert tuple(KINDS) == wrong_crl.KINDS


def replace_list(experiment: RevocationData, kind: str) -> None:
    number = list(KINDS).index(kind)
    experiment.served[number] = replace(
        experiment.served[number], reported=frozenset({HOST}), replaced=frozenset({ORIGIN})
    )


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "status 502"), {"requests lost"}),
        (lambda e: e.revoked.ways.tried.append(Tried(15.0, POOLED, "")), {"the revoked client stays refused"}),
        (lambda e: e.valid.ways.tried.append(Tried(15.0, NEW, "status 403")), {"no valid client is refused"}),
        (lambda e: replace_list(e, "replayed"), {"defective CRLs are rejected", "defective CRLs are reported"}),
        (lambda e: e.served.append(replace(e.served[0], reported=frozenset({HOST}))), {"defective CRLs are reported"}),
        (lambda e: setattr(e.ageing, "alarm", float("inf")), {"alarm before nextUpdate"}),
        (lambda e: setattr(e.ageing, "alarm", 17.0), {"alarm before nextUpdate"}),
        (lambda e: setattr(e.ageing, "cleared", float("inf")), {"the alarm ends"}),
        (lambda e: e.stage.watch.alarms.append(Alarm(9.0, ORIGIN, f"{CHECK}: 100 s")),
            {"no alarm while the CRL is fresh"}),
    ],
    ids=["good", "lost", "accepted-again", "valid-refused", "replaced", "not-reported", "no-alarm", "early-alarm",
         "still-active", "false-alarm"],
)  # fmt: skip
def test_revocation_data(tmp_path: Path, change: Callable[[RevocationData], object], failed: set[str]) -> None:
    experiment, run = prepared(RevocationData, tmp_path, rate=20)
    assert isinstance(experiment, RevocationData)
    experiment.stage = stage(run, 25, 20, RevocationData.hosts)
    experiment.began, experiment.ended = 4.0, 24.0
    one = revoked(6.0)
    experiment.revoked, experiment.valid = Client(one.ways, 8.2), Client(Ways())
    experiment.valid.ways.tried += [Tried(5.0 + n, path, "") for n in range(15) for path in PATHS]
    for number, kind in enumerate(KINDS):
        begin = 9.0 + number
        experiment.served.append(Served(kind, begin, begin + 1, frozenset(RevocationData.hosts), frozenset()))
    experiment.ageing = Ageing(18.0, 3660.0, expired=20.0, alarm=18.7, end=22.0, cleared=23.0)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_client_that_is_not_refused_after_its_revocation_makes_the_run_invalid(tmp_path: Path) -> None:
    experiment, run = prepared(RevocationData, tmp_path, rate=20)
    assert isinstance(experiment, RevocationData)
    experiment.stage = stage(run, 25, 20, RevocationData.hosts)
    experiment.began, experiment.ended = 4.0, 24.0
    experiment.revoked, experiment.valid = Client(revoked(6.0, refused_after=None).ways, 8.2), Client(Ways())
    experiment.ageing = Ageing(18.0, 3660.0, expired=20.0, alarm=18.7, end=22.0, cleared=23.0)
    assert verdict(run, experiment)[0] is Verdict.INVALID


# --- D16 blind-monitor ------------------------------------------------------------------------------------------------


def alarm(at: float, about: str, check: str, receiver: str = "pager-2") -> blind_monitor.Received:
    body = {"kind": "alarm", "about": about, "check": check}
    return blind_monitor.Received(at, receiver, body, at - 0.2)


SITE = "site.example.com:443"


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: e.received.pop(0), {"noticed: unlisted certificate"}),
        (lambda e: e.received.pop(1), {"noticed: no resolver"}),
        (lambda e: e.received.pop(2), {"noticed: no resolver"}),
        (lambda e: e.received.append(replace(e.received.pop(), at=29.0)), {"noticed: dead monitor"}),
        (lambda e: e.received.insert(0, alarm(3.0, SITE, "chain")), {"no alarm before the faults"}),
    ],
    ids=["good", "lost", "inventory", "fault-not-named", "overdue-not-named", "too-late", "false-alarm"],
)
def test_blind_monitor(tmp_path: Path, change: Callable[[BlindMonitor], object], failed: set[str]) -> None:
    experiment, run = prepared(BlindMonitor, tmp_path, rate=20)
    assert isinstance(experiment, BlindMonitor)
    experiment.stage = stage(run, 32, 20)
    experiment.began, experiment.ended = 4.0, 30.0
    experiment.received += [alarm(5.0, "forgotten.example.com", "inventory")]
    named = {"unlisted certificate": ("forgotten.example.com", "inventory"), "no resolver": (SITE, "connection"),
             "no channel": ("pager", "channel"), "dead monitor": ("monitor-1", "heartbeat")}  # fmt: skip
    for number, fault in enumerate(blind_monitor.FAULTS):
        begin = 4.0 + 6 * number
        not_after = begin + 5.5 if number else None
        experiment.faults.append(blind_monitor.Fault(fault, begin, begin + 6.0, named[fault], not_after))
        if number:
            experiment.received += [alarm(begin + 1.0, *named[fault]), alarm(begin + 4.0, SITE, "expiry")]
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


# --- D18 client-auth-gone ---------------------------------------------------------------------------------------------


def accept(experiment: ClientAuthGone) -> None:
    edge = experiment.renewals[0]
    edge.errors.clear()
    edge.kept = False


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "status 502"), {"requests lost"}),
        (accept, {"refused before use", "the old certificate stays in use"}),
        (lambda e: e.renewals[1].errors.append(e.renewals[1].errors.pop().replace("purpose", "name")),
            {"refused before use"}),
        (lambda e: setattr(e.renewals[0], "alarmed", False), {"alarm after 2 failures"}),
        (lambda e: setattr(e.renewals[2], "kept", True), {"hosts that are servers only renew"}),
        (lambda e: e.stage.watch.alarms.append(Alarm(12.0, HOST, "renewal: 2 failures")),
            {"the alarm ends with the fault"}),
    ],
    ids=["good", "lost", "accepted", "another-reason", "silent", "server-kept", "still-ringing"],
)  # fmt: skip
def test_client_auth_gone(tmp_path: Path, change: Callable[[ClientAuthGone], object], failed: set[str]) -> None:
    experiment, run = prepared(ClientAuthGone, tmp_path, rate=20)
    assert isinstance(experiment, ClientAuthGone)
    experiment.stage = stage(run, 15, 20, ClientAuthGone.hosts)
    experiment.began, experiment.ended, experiment.usages = 4.0, 13.0, ["serverAuth"]
    for host in ClientAuthGone.hosts:
        client = host in client_auth_gone.CLIENTS
        errors = ["a server says: unsuitable certificate purpose"] * 2 if client else []
        experiment.renewals.append(client_auth_gone.Renewed(host, 5.0, 6.0, errors, kept=client, alarmed=client))
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_ca_that_still_issues_client_certificates_makes_the_run_invalid(tmp_path: Path) -> None:
    experiment, run = prepared(ClientAuthGone, tmp_path, rate=20)
    assert isinstance(experiment, ClientAuthGone)
    experiment.stage = stage(run, 15, 20, ClientAuthGone.hosts)
    experiment.began, experiment.ended, experiment.usages = 4.0, 13.0, ["clientAuth", "serverAuth"]
    assert verdict(run, experiment)[0] is Verdict.INVALID


# --- D12 leaf-compromise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: e.incidents[0].partner[0].tried.append(Tried(9.0, NEW, "status 403")),
            {"requests of the partner lost"}),
        (lambda e: e.incidents[0].attacker.tried.append(Tried(15.5, RESUMED, "")),
            {f"exposure to the attacker, {RESUMED}"}),
        (lambda e: e.incidents[0].revoked.discard("b"), {"all certificates with the key revoked"}),
        (lambda e: e.incidents[0].judged.pop(), {"all certificates with the key revoked"}),
        (lambda e: setattr(e.incidents[0], "refusal", ""), {"the stolen key is not certified again"}),
    ],
    ids=["good", "lost", "partner-refused", "attacker-accepted", "second-certificate", "OpenSSL", "certified-again"],
)  # fmt: skip
def test_leaf_compromise(tmp_path: Path, change: Callable[[LeafCompromise], object], failed: set[str]) -> None:
    experiment, run = prepared(LeafCompromise, tmp_path, rate=20)
    assert isinstance(experiment, LeafCompromise)
    experiment.stage = stage(run, 20, 20)
    experiment.began, experiment.ended = 4.0, 18.0
    attacker, partner = revoked(8.0).ways, Ways()
    partner.tried += [Tried(5.0 + n, path, "") for n in range(10) for path in PATHS]
    refusal = "https://ca.example.com/finalize: 400 badCSR: revoked for key compromise"
    words = ["certificate revoked"] * 2
    incident = Incident(attacker, [partner], 8.0, {"a", "b"}, {"a", "b"}, refusal, words)
    experiment.incidents.append(incident)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)
