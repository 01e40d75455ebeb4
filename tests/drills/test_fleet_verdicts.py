"""Tests for the verdicts of drills with simulated hosts or client rules: each defect fails its own check."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authority import issue_leaf, new_key
from drills import one_name_fails
from drills.enrolment import Enrolment
from drills.fleet import Fleet
from drills.lifetime_changes import BEFORE_END, FIXED, HOSTS, POLICIES, RULES, Renewed
from drills.mass_revocation import MassRevocation
from drills.one_name_fails import OneNameFails
from drills.watch import Held
from drills.year import Year
from experiments import Run, Verdict
from renewal.schedule import Rule
from tests.drills.synthetic import EPOCH, break_requests, prepared, stage, verdict
from tests.peers import Papers, papers

__all__ = ["papers"]

INFINITE = float("inf")


# --- D4 one-name-fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: setattr(e.watched[-1].host, "renewed", 13.0), {"names without a fault renewed"}),
        (lambda e: setattr(e.watched[0], "alarm", INFINITE), {"alarm for each failing name"}),
        (lambda e: setattr(e.watched[0], "alarm", 11.5), {"alarm for each failing name"}),
        (lambda e: e.watched[2].host.kinds.__setitem__(slice(None), ["dns"]), {"the CA's reason is the cause"}),
        (lambda e: e.watched[1].host.orders.insert(1, 8.5), {"shortest time between two orders of a host"}),
        (lambda e: setattr(e.watched[3].host, "renewed", 26.0), {"all names renew when the faults end"}),
        (lambda e: setattr(e.watched[3].host, "renewed", INFINITE), {"all names renew when the faults end"}),
    ],
    ids=["good", "lost", "healthy-name-late", "no-alarm", "late-alarm", "wrong-reason", "hot-loop", "late", "never"],
)
def test_one_name_fails(
    tmp_path: Path, papers: Papers, change: Callable[[OneNameFails], object], failed: set[str]
) -> None:
    experiment, run = prepared(OneNameFails, tmp_path, rate=20)
    assert isinstance(experiment, OneNameFails)
    made = experiment.stage = stage(run, 26, 20)
    made.epoch = EPOCH - run.now()
    experiment._create(run, made, Fleet(run, made, Enrolment(trust=papers.trust)))
    experiment.began, experiment.mended, experiment.ended, experiment.not_after = 4.0, 12.0, 18.0, 16.0
    for each in experiment.watched:
        each.host.orders, each.host.renewed = [8.0], 8.4
        if each.cause:
            each.host.orders, each.host.renewed = [8.0, 9.2, 15.0], 15.4
            each.alarm, each.host.kinds = 9.5, [one_name_fails.PROBLEMS[each.cause][0]]
    change(experiment)
    if "names without a fault renewed" in failed:
        experiment.watched[-1].host.orders[-1] = 12.6
    if experiment.watched[3].host.renewed == 26.0:
        experiment.watched[3].host.orders[-1] = 25.0
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


# --- D17 mass-revocation ----------------------------------------------------------------------------------------------


def together(experiment: MassRevocation) -> None:
    for host in experiment.fleet[: experiment.pollers]:
        host.orders[0], host.renewed = 8.1, 9.0


def late(experiment: MassRevocation) -> None:
    experiment.fleet[0].orders[0], experiment.fleet[0].renewed = 12.0, 12.4


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (late, {"replaced within 24 hours"}),
        (together, {"busiest second"}),
        (lambda e: e.outstanding.pop(), {"the CA names the hosts that did not replace"}),
        (lambda e: e.crl.remove(3), {"recalled certificates on the CRL"}),
        (lambda e: e.crl.add(103), {"hosts with a revoked certificate"}),
    ],
    ids=["good", "lost", "late", "peak", "one-is-not-named", "one-is-not-revoked", "a-new-one-is-revoked"],
)
def test_mass_revocation(
    tmp_path: Path, papers: Papers, change: Callable[[MassRevocation], object], failed: set[str]
) -> None:
    experiment, run = mass_revocation(tmp_path, papers)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)
    rows = {row.name: row.measured.value for row in run.result.rows}
    if not failed:
        assert (rows["replaced within 24 hours"], rows["replaced within 5 days"]) == (80.0, 82.5)


def test_slow_orders_make_a_mass_revocation_invalid(tmp_path: Path, papers: Papers) -> None:
    experiment, run = mass_revocation(tmp_path, papers)
    for host in experiment.fleet:
        host.renewed += 1.5
    assert verdict(run, experiment)[0] is Verdict.INVALID


def test_a_recall_by_issuer_names_the_key_of_the_ca(tmp_path: Path, papers: Papers) -> None:
    experiment, run = prepared(MassRevocation, tmp_path, recall="issuer")
    assert isinstance(experiment, MassRevocation)
    fleet = Fleet(run, stage(run, 1, 20), Enrolment(trust=papers.trust))
    host = fleet.add(Rule(), run.rng)
    host.leaf = issue_leaf(papers.issuer, new_key().public_key(), [host.name], EPOCH, 600)
    experiment.fleet = [host]
    assert experiment.selection() == {"issuer": papers.issuer.key_id.hex()}


def mass_revocation(tmp_path: Path, papers: Papers) -> tuple[MassRevocation, Run]:
    """Return a run in which 32 polling hosts renew within half a day (2.5 s), and one other host after two days."""
    experiment, run = prepared(MassRevocation, tmp_path, rate=20, hosts=40)
    assert isinstance(experiment, MassRevocation)
    made = experiment.stage = stage(run, 36, 20)
    experiment.began, experiment.recalled, experiment.ended = 4.0, 7.0, 33.0
    fleet = Fleet(run, made, Enrolment(trust=papers.trust))
    for number in range(experiment.p.hosts):
        host = fleet.add(Rule(), run.rng)
        polls = number < experiment.pollers
        experiment.old[host.name] = experiment.using[host.name] = number
        if polls or number == experiment.p.hosts - 1:
            host.orders = [7.0 + (number / 13 if polls else 10.0)]
            host.renewed = host.orders[0] + 0.4
            experiment.using[host.name] = 100 + number
    experiment.fleet = fleet.hosts
    experiment.outstanding = [host.name for host in fleet.hosts if host.renewed == INFINITE]
    experiment.crl = set(range(experiment.p.hosts))
    return experiment, run


# --- year, with a policy ----------------------------------------------------------------------------------------------


def expire(experiment: Year) -> None:
    assert experiment.stage is not None
    first, *others = experiment.stage.watch.held
    experiment.stage.watch.held[:] = [replace(first, not_after=first.issued + 1), *others]


def survive(experiment: Year) -> None:
    assert experiment.changes is not None
    last = experiment.changes.renewals[-1]
    experiment.changes.renewals[-1] = replace(last, not_after=last.ordered + 1)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (expire, {"no certificate ended"}),
        (survive, {"rules that let a certificate expire"}),
        (lambda e: e.changes.renewals.pop(0), {"rules that let a certificate expire"}),
    ],
    ids=["good", "lost", "expired", "a-rule-survives", "a-renewal-is-missing"],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_year_with_a_policy(tmp_path: Path, policy: str, change: Callable[[Year], object], failed: set[str]) -> None:
    experiment, run = prepared(Year, tmp_path, rate=20, policy=policy)
    assert isinstance(experiment, Year)
    changes = experiment.changes
    assert changes is not None
    made = experiment.stage = stage(run, 110, 20, HOSTS)
    changes.began, changes.ended = 4.0, 104.0
    changes.begins = [(4.0, 5.0)]
    experiment.began, experiment.ended = 4.0, 104.0
    for life in changes.lives:
        for rule in (BEFORE_END, FIXED):
            ordered, not_after = (10.0 + changes.scale.seconds(days) for days in (RULES[rule](life), life))
            changes.renewals.append(Renewed(rule, life, 10.0, not_after, ordered, ordered + 0.5))
    for host in HOSTS:
        for begin in range(4, 104, 20):
            made.watch.held.append(Held(host, f"{begin:x}", EPOCH + begin, EPOCH + begin + 24, EPOCH + begin + 20))
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)
    rows = {row.name: row.measured.value for row in run.result.rows}
    if not failed:
        assert rows["every 60 days, 45 days" if policy == "letsencrypt" else "every 60 days, 47 days"] < 0
