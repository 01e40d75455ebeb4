"""Tests for the verdicts of drills on renewal: a good synthetic run passes, and each defect fails its own check."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drills import acme_chaos, broken_material, ca_outage, clock_skew
from drills.acme_chaos import AcmeChaos, PunctualClient
from drills.broken_material import BrokenMaterial
from drills.ca_outage import CaOutage
from drills.clock_skew import ClockSkew
from drills.enrolment import Enrolment
from drills.fleet import Fleet
from drills.leaf_expiry import LeafExpiry
from drills.paths import NEW, PATHS, Paths, Tried
from drills.rehearsal import HOST, Rehearsal
from drills.renewal_storm import RenewalStorm
from drills.renewal_under_load import RenewalUnderLoad
from drills.watch import Alarm, Held
from drills.year import Year
from experiments import Chart, Run, Verdict, parameters
from monitor.openssl import Probe
from tests.drills.synthetic import EPOCH, Ways, break_requests, prepared, stage, verdict
from tests.peers import Papers, papers

__all__ = ["papers"]


# --- D1 leaf-expiry ---------------------------------------------------------------------------------------------------


def leaf_expiry(tmp_path: Path) -> tuple[LeafExpiry, Run, Rehearsal, Paths]:
    experiment, run = prepared(LeafExpiry, tmp_path, rate=20)
    assert isinstance(experiment, LeafExpiry)
    made = experiment.stage = stage(run, 26, 20)
    ways = experiment.ways = Ways()
    experiment.issued, experiment.off, experiment.end, experiment.allowed, experiment.renewed = (
        1.0,
        4.0,
        13.0,
        19.0,
        19.5,
    )
    made.watch.alarms.append(Alarm(1.0 + 12.0 * 0.79, HOST, "certificate: renewal was due 1 s ago"))
    break_requests(made, 13.0, 19.4, "certificate: certificate has expired")
    for i, probe in enumerate(made.prober.probes):
        if 13.0 <= probe.at < 19.4:
            made.prober.probes[i] = Probe(probe.at, "certificate has expired")
    for at in range(8, 50):
        for path in PATHS:
            bad = path == NEW and 13.0 <= at / 2 < 19.4
            ways.tried.append(Tried(at / 2, path, "certificate has expired" if bad else ""))
    return experiment, run, made, ways


def silently_accepted(made: Rehearsal) -> None:
    break_requests(made, 15.0, 15.3, "")


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda made: made.watch.alarms.clear(), {"alarm before notAfter"}),
        (lambda made: break_requests(made, 8, 8.2, "reset"), {"requests lost before notAfter"}),
        (silently_accepted, {"new handshakes after notAfter"}),
        (lambda made: break_requests(made, 15, 16, "connect: refused"), {"new handshakes after notAfter"}),
        (lambda made: made.prober.probes.append(Probe(15.0, "", "0a")), {"the outside prober agrees"}),
        (lambda made: break_requests(made, 24, 25, "reset"), {"recovers alone"}),
    ],
    ids=["good", "no-alarm", "lost-early", "accepted", "refused-for-another-reason", "prober-disagrees", "lost-late"],
)
def test_leaf_expiry(tmp_path: Path, change: Callable[[Rehearsal], object], failed: set[str]) -> None:
    experiment, run, made, _ = leaf_expiry(tmp_path)
    change(made)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)
    if not failed:
        rows = {row.name: row.measured.value for row in run.result.rows}
        assert rows["exposure, new handshake"] == 0
        assert rows["exposure, pooled connection"] == rows["exposure, resumed session"] == 5.5


# --- D2 renewal-under-load --------------------------------------------------------------------------------------------


def renewals(tmp_path: Path) -> tuple[RenewalUnderLoad, Run, Rehearsal]:
    experiment, run = prepared(RenewalUnderLoad, tmp_path, rate=100)
    assert isinstance(experiment, RenewalUnderLoad)
    made = experiment.stage = stage(run, 25, 100)
    experiment.began, experiment.ended = 4.0, 23.0
    for number in range(4):
        issued = 3.5 + 6.2 * number
        made.watch.held.append(Held(HOST, f"{number}a", EPOCH + issued, EPOCH + issued + 9, EPOCH + issued + 6.0))
        made.prober.probes.append(Probe(issued + 1, "", f"{number}a"))
    return experiment, run, made


def slow_renewals(made: Rehearsal) -> None:
    for each in made.requests:
        if any(abs(each.intended - (held.issued - EPOCH)) < 0.5 for held in made.watch.held[1:]):
            each.done += 0.1


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda made: break_requests(made, 9.7, 9.8, "reset"), {"requests lost"}),
        (lambda made: made.prober.probes.append(Probe(9.7, "connection refused")),
            {"handshakes from outside that failed"}),
        (lambda made: made.watch.held.pop(), {"renewals"}),
        (lambda made: made.prober.probes.remove(Probe(3.5 + 6.2 * 2 + 1, "", "2a")), {"serials seen from outside"}),
        (slow_renewals, {"p99 during renewals"}),
    ],
    ids=["good", "lost", "prober", "one-is-missing", "one-is-never-seen", "slow"],
)  # fmt: skip
def test_renewal_under_load(tmp_path: Path, change: Callable[[Rehearsal], object], failed: set[str]) -> None:
    experiment, run, made = renewals(tmp_path)
    change(made)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_late_requests_make_a_judgement_of_latency_invalid(tmp_path: Path) -> None:
    experiment, run, made = renewals(tmp_path)
    made.lag.add(0.5)
    assert verdict(run, experiment)[0] is Verdict.INVALID


# --- D3 broken-material -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 6, 6.2, "tls: no shared cipher"), {"requests lost"}),
        (lambda e: setattr(e.cases[0], "kept", False), {"the old certificate stays in service"}),
        (lambda e: setattr(e.cases[0], "alarmed", False), {"alarm after 2 failures"}),
        (lambda e: e.cases[0].refused.pop(), {"renewals refused"}),
        (
            lambda e: e.stage.watch.alarms.append(Alarm(30.0, HOST, "renewal: 2 failures")),
            {"the alarm ends with the fault"},
        ),
    ],
    ids=["good", "lost", "replaced", "silent", "taken", "still-ringing"],
)
def test_broken_material(tmp_path: Path, change: Callable[[BrokenMaterial], object], failed: set[str]) -> None:
    experiment, run = prepared(BrokenMaterial, tmp_path, rate=20)
    assert isinstance(experiment, BrokenMaterial)
    experiment.stage = stage(run, 30, 20)
    experiment.began, experiment.ended = 4.0, 28.0
    for number, kind in enumerate((*broken_material.CORRUPTED, *broken_material.MISISSUED)):
        case = broken_material._Case(kind, 4.0 + 3 * number, 6.0 + 3 * number, ["no", "no"], alarmed=True, kept=True)
        experiment.cases.append(case)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


# --- D8 ca-outage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost, outage of 20% of a life"}),
        (lambda e: break_requests(e.stage, 21, 21.2, "reset"), {"requests lost, outage of 120% of a life"}),
        (lambda e: break_requests(e.stage, 27, 27.4, ""), {"expired and accepted, outage of 120% of a life"}),
        (lambda e: setattr(e.outages[1], "all_renewed", 99.0), {"all renewed, outage of 120% of a life"}),
        (lambda e: setattr(e.outages[0], "tries", 25), {"back-off obeyed"}),
        (lambda e: e.stage.watch.alarms.clear(), {"alarm before expiry"}),
    ],
    ids=["good", "lost-within-the-margin", "lost-before-expiry", "accepted", "not-renewed", "hot-loop", "silent"],
)
def test_ca_outage(tmp_path: Path, change: Callable[[CaOutage], object], failed: set[str]) -> None:
    experiment, run = prepared(CaOutage, tmp_path, rate=20, outages="0.2,1.2")
    assert isinstance(experiment, CaOutage)
    made = experiment.stage = stage(run, 40, 20, CaOutage.hosts)
    experiment.began, experiment.ended = 2.0, 36.0
    experiment.outages = [
        ca_outage._Outage(0.2, "answers 503", 8.0, 10.0, 12.0, 10.5, 11.0, 2),
        ca_outage._Outage(1.2, "refuses connections", 20.0, 32.0, 24.0, 33.0, 34.0, 11),
    ]
    made.watch.alarms.append(Alarm(21.5, HOST, "renewal: 2 failures in a row"))
    break_requests(made, 24.0, 33.0, "certificate: certificate has expired")
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


# --- D14 clock-skew ---------------------------------------------------------------------------------------------------


def skewed(who: str, sign: int, name: str, **change: Any) -> clock_skew._Case:
    days = sign * clock_skew.SKEWS[name]
    far = who != clock_skew.CLIENT and name != "1 h"
    case = {"got": True, "wanted": True, "alarm": far, "tries": 2, **change}
    return clock_skew._Case(who, days, name, 5.0, 8.0, **case)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: e.cases.append(skewed("CA", 1, "1 life", got=True, wanted=False)), {"what was predicted"}),
        (lambda e: e.cases.append(skewed("server", 1, "1 d", alarm=False)),
            {"alarm where a clock is off by more than 1.5 s"}),
        (lambda e: e.cases.append(skewed("server", -1, "1 h", alarm=True)), {"no alarm within the tolerance"}),
        (lambda e: e.cases.append(skewed("server", 1, "1 life", tries=20)), {"no renewal loop"}),
        (lambda e: e.stage.watch.alarms.append(Alarm(30.0, HOST, "clock: 9 s ahead")),
            {"clocks set right again: no alarm left"}),
        (lambda e: break_requests(e.stage, 6, 6.3, "reset"), {"requests lost"}),
    ],
    ids=["good", "taken", "silent", "noisy", "loop", "still-ringing", "lost"],
)  # fmt: skip
def test_clock_skew(tmp_path: Path, change: Callable[[ClockSkew], object], failed: set[str]) -> None:
    experiment, run = prepared(ClockSkew, tmp_path, rate=20)
    assert isinstance(experiment, ClockSkew)
    experiment.stage = stage(run, 12, 20)
    experiment.began, experiment.ended = 4.0, 11.0
    experiment.cases = [skewed(w, s, n) for w in ("client", "server", "CA") for s in (1, -1) for n in clock_skew.SKEWS]
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


# --- year -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 30, 30.2, "reset"), {"requests lost"}),
        (lambda e: e.stage.prober.probes.append(Probe(30.0, "certificate has expired")),
            {"handshakes from outside that failed"}),
        (lambda e: _forget(e, "edge", 2), {"no certificate ended", "renewals of each host"}),
        (lambda e: _forget(e, "news", 0), {"no certificate ended", "renewals of each host"}),
    ],
    ids=["good", "lost", "prober", "edge-forgotten", "news-never-renewed"],
)  # fmt: skip
def test_year(tmp_path: Path, change: Callable[[Year], object], failed: set[str]) -> None:
    experiment, run = prepared(Year, tmp_path, rate=20, days=183, seconds=60)
    assert isinstance(experiment, Year)
    made = experiment.stage = stage(run, 70, 20, Year.hosts)
    experiment.began, experiment.ended = 6.0, 66.0
    life = experiment.scale.life
    for host in Year.hosts:
        issued = 5.5
        while issued < 66.0:
            serial = f"{host}-{issued:.0f}"
            made.watch.held.append(
                Held(host, serial, EPOCH + issued, EPOCH + issued + life, EPOCH + issued + life * 2 / 3)
            )
            made.prober.probes.append(Probe(issued, "", serial))
            issued += life * 2 / 3 + 0.3
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)
    assert run.findings.charts[0].name == "calendar"
    assert isinstance(run.findings.charts[0], Chart)
    assert [lane.label for lane in run.findings.charts[0].panels[0].lanes] == list(Year.hosts)


def _forget(experiment: Year, host: str, after: int) -> None:
    """Remove all renewals of *host* except the first *after* renewals."""
    made = experiment.stage
    assert made is not None
    for each in made.watch.of(host)[after + 1 :]:
        made.watch.held.remove(each)


# --- D5 acme-chaos ----------------------------------------------------------------------------------------------------


def first_client(experiment: AcmeChaos) -> PunctualClient:
    client = experiment.fleet[0].client
    assert isinstance(client, PunctualClient)
    return client


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: setattr(e.fleet[7], "renewed", 23.0), {"renewed before the end of the certificate"}),
        (lambda e: setattr(e.fleet[7], "renewed", float("inf")), {"renewed before the end of the certificate"}),
        (lambda e: e.stage.watch.held.pop(), {"renewed before the end of the certificate"}),
        (lambda e: first_client(e).early.append(0.9), {"requests before Retry-After has passed"}),
        (lambda e: setattr(e.fleet[7], "moved", 1), {"renewals moved by wrong renewal information"}),
    ],
    ids=["good", "lost", "late", "never", "a-host-of-the-lab", "early", "moved"],
)
def test_acme_chaos(tmp_path: Path, papers: Papers, change: Callable[[AcmeChaos], object], failed: set[str]) -> None:
    experiment, run = chaos(tmp_path, papers)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_fault_without_effect_makes_the_run_invalid(tmp_path: Path, papers: Papers) -> None:
    experiment, run = chaos(tmp_path, papers)
    experiment.hit["acme_500"] = 1
    assert verdict(run, experiment)[0] is Verdict.INVALID


def test_a_slow_machine_makes_the_chaos_invalid(tmp_path: Path, papers: Papers) -> None:
    experiment, run = chaos(tmp_path, papers)
    for host in experiment.fleet:
        host.renewed += 2.0
    assert verdict(run, experiment)[0] is Verdict.INVALID


def chaos(tmp_path: Path, papers: Papers) -> tuple[AcmeChaos, Run]:
    experiment, run = prepared(AcmeChaos, tmp_path, rate=20)
    assert isinstance(experiment, AcmeChaos)
    made = experiment.stage = stage(run, 22, 20, AcmeChaos.hosts)
    experiment.began, experiment.ended = 4.0, 20.0
    fleet = Fleet(run, made, Enrolment(trust=papers.trust))
    for number in range(experiment.p.hosts):
        experiment._add(run, fleet, number)
    for host in experiment.fleet:
        host.orders, host.renewed, host.not_after = [15.0], 15.4, 22.0
    first_client(experiment).asked = 6
    experiment.hit = dict.fromkeys((*acme_chaos.FATAL, *acme_chaos.HARMLESS, acme_chaos.WINDOW), experiment.p.hits)
    for name in AcmeChaos.hosts:
        for serial, issued in (("0a", 4.0), ("0b", 16.0)):
            made.watch.held.append(Held(name, serial, EPOCH + issued, EPOCH + issued + 18, EPOCH + issued + 12))
    return experiment, run


# --- D9 renewal-storm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: setattr(e.fleet[7], "renewed", 90.0), {"renewed before the end of the certificate"}),
        (lambda e: setattr(e.fleet[7], "renewed", float("inf")), {"renewed before the end of the certificate"}),
        (lambda e: [h.orders.__setitem__(0, 6.5) for h in e.fleet[:40]], {"busiest second"}),
        (lambda e: [h.orders.extend([6.5] * 2) for h in e.fleet[:40]], {"busiest second"}),
    ],
    ids=["good", "lost", "late", "never", "together", "retries-in-a-loop"],
)
def test_renewal_storm(
    tmp_path: Path, papers: Papers, change: Callable[[RenewalStorm], object], failed: set[str]
) -> None:
    experiment, run = prepared(RenewalStorm, tmp_path, rate=20)
    assert isinstance(experiment, RenewalStorm)
    made = experiment.stage = stage(run, 32, 20)
    experiment.began, experiment.ended = 4.0, 26.0
    experiment._create(run, made, Fleet(run, made, Enrolment(trust=papers.trust)))
    experiment.not_after = 60.0
    for number, host in enumerate(experiment.fleet):
        host.orders.append(4.0 + number / experiment.p.per_second)
        host.renewed = host.orders[0] + 0.4
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


@pytest.mark.parametrize("negative", [False, True], ids=["jitter", "control"])
def test_renewals_of_the_fleet_are_due_within_the_window_that_begins_now(
    tmp_path: Path, papers: Papers, negative: bool
) -> None:
    _, run = prepared(RenewalStorm, tmp_path)
    experiment = RenewalStorm(parameters.bind(RenewalStorm.settings, quick=True), negative=negative)
    made = stage(run, 1, 20)
    made.epoch = EPOCH - run.now()
    experiment._create(run, made, Fleet(run, made, Enrolment(trust=papers.trust)))
    due = [host.lifecycle.next_renewal - EPOCH for host in experiment.fleet]
    assert -0.5 <= min(due) <= max(due) <= experiment.window + 0.5
    assert (max(due) - min(due) > 0.8 * experiment.window) is not negative
