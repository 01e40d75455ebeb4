"""What every scenario owes the reader, and what their own parts say without a lab."""

import asyncio
from pathlib import Path

import pytest

from drills import DRILLS
from experiments import parameters
from experiments.result import Quantity, Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from reports.drawing import svg
from scenarios import SCENARIOS
from scenarios.instruments import memory_handshake
from scenarios.time_wait import REUSING, TimeWait, sustained
from tests.experiments.lab import MemoryLab
from tests.scenarios.runs import predicted
from theory import time_wait

EVERY = (*SCENARIOS, *DRILLS)
DOCS = Path(__file__).parents[2] / "docs" / "scenarios"


def made(kind, *, quick=True, negative=False):
    return kind(parameters.bind(kind.settings, quick=quick), negative=negative)


@pytest.mark.parametrize("kind", EVERY, ids=lambda k: k.name)
def test_it_says_what_it_claims_means_and_takes_away(kind):
    assert kind.claim.endswith(".")
    assert kind.production
    assert kind.control.without
    assert kind.control.fails


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_it_says_what_the_seed_says_and_where_theory_comes_from(kind):
    assert kind.says
    assert kind.source


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
@pytest.mark.parametrize("negative", [False, True])
def test_a_prediction_is_made_before_anything_is_measured(kind, negative):
    said = made(kind, negative=negative).predict()
    assert said
    assert all(isinstance(each, Quantity) for each in said.values())


@pytest.mark.parametrize(("rate", "ports", "waits"), [(32.0, 1024, True), (4.0, 1024, False)])
def test_the_wait_is_predicted_only_where_ports_run_out(rate, ports, waits):
    kind = next(each for each in SCENARIOS if each.name == "time-wait")
    given = [f"rate={rate:g}", f"ports={ports}", "seconds=80"]
    said = kind(parameters.bind(kind.settings, quick=True, given=given)).predict()
    assert ("the wait" in said) is waits


@pytest.mark.parametrize("kind", EVERY, ids=lambda k: k.name)
def test_every_parameter_has_a_reason_and_bounds(kind):
    for each in parameters.describe(kind.settings):
        assert each["help"]
        if isinstance(each["full"], (int, float)) and not isinstance(each["full"], bool):
            assert each["low"] <= each["full"] <= each["high"]


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_a_quick_run_is_meant_to_take_at_most_forty_seconds(kind):
    assert made(kind).duration() <= 45


def reused(ports, rate, seconds):
    """Return attempts of a host whose ports are free again 1.04 s after they were taken."""
    busy: list[float] = []
    attempts = []
    for at in (n / rate for n in range(int(seconds * rate))):
        busy = [until for until in busy if until > at]
        if len(busy) < ports:
            busy.append(at + 1.04)
            attempts.append((at, at, ""))
        else:
            attempts.append((at, at, "no port left"))
    return attempts


def test_a_port_that_is_free_after_a_second_sustains_almost_as_many_per_second():
    assert sustained(reused(24, 96, 12.0)) == pytest.approx(24 / 1.04, rel=0.03)


@pytest.fixture
def exhausted(tmp_path):
    """A time-wait run whose attempts are those of the theory, without any network."""
    experiment = made(TimeWait)
    run = predicted(experiment, tmp_path)
    experiment._lay_out(run, {33_100})
    for arm in experiment.arms.values():
        ports = arm.ports
        for number in range(int(experiment.p.seconds * arm.rate)):
            at = number / arm.rate
            runs_out = arm.closes == "client" and not arm.uses
            gone = runs_out and not time_wait.success_share(arm.rate, at, ports)
            arm.attempts.append((at, at, "no port left" if gone else ""))
        growth = arm.rate / (arm.uses or 1) if arm.closes == "client" else 0
        arm.waiting = [(at / 4, int(min(ports, growth * at / 4))) for at in range(int(experiment.p.seconds * 4))]
    few = experiment.reuse_ports
    for name, sources in REUSING.items():
        experiment.reusing[name] = reused(few * sources, few * 4, 12.0)
    experiment.reuser = {"tw_reuse": "1"}
    experiment.on_the_edge = round(time_wait.ports_held(experiment.p.rate, experiment.p.seconds, experiment.p.ports))
    return experiment, run


def test_attempts_as_theory_has_them_pass(exhausted):
    experiment, run = exhausted
    experiment.conclude(run)
    assert [c.name for c in run.result.checks if not c.ok] == []
    assert {row.name: row.residual for row in run.result.rows}["ports exhausted, 64/s"] == pytest.approx(0, abs=0.02)


def test_every_cure_stands_beside_what_it_multiplies(exhausted):
    experiment, run = exhausted
    experiment.conclude(run)
    rows = {row.name: row for row in run.result.rows}
    said = {name: rows[f"multiplier, {name}"].predicted for name in experiment._multipliers()}
    assert said == pytest.approx({"two destinations": 2, "twice the ports": 2, "10 requests each": 10, "tcp_tw_reuse": 57.7, "tcp_tw_reuse, two addresses": 115.5}, rel=0.001)  # fmt: skip
    assert all(abs(rows[f"multiplier, {name}"].measured.value / value - 1) < 0.05 for name, value in said.items())


def test_a_host_that_does_not_reuse_ports_is_told_and_not_judged(exhausted):
    experiment, run = exhausted
    experiment.reuser = {"tw_reuse": "2"}
    experiment.conclude(run)
    assert [c.name for c in run.result.checks if not c.ok] == []
    assert "tcp_tw_reuse=2, expected 1" in run.result.left_out[-1]


def test_an_edge_that_does_not_keep_what_it_closes_fails(exhausted):
    experiment, run = exhausted
    experiment.on_the_edge = 0
    experiment.conclude(run)
    assert [c.name for c in run.result.checks if not c.ok] == ["on the edge, which closes first"]


def test_a_port_that_is_free_too_early_fails(exhausted):
    experiment, run = exhausted
    experiment.base.attempts = [(at, begun, "") for at, begun, _ in experiment.base.attempts]
    experiment.conclude(run)
    assert "ports exhausted" in [c.name for c in run.result.checks if not c.ok]


def test_its_pictures_are_drawn_from_what_was_measured(exhausted):
    experiment, run = exhausted
    experiment.conclude(run)
    assert [svg(chart).count("<circle") > 2 for chart in run.findings.charts] == [True, False, True, True]


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_resumed_handshake_sends_no_certificate(version):
    ends = memory_handshake.Ends("ECDSA P-256", version)
    full, resumed = ends.cost(3), ends.cost(3, resumed=True)
    assert (full.resumed, resumed.resumed) == (False, True)
    assert full.flight - resumed.flight >= sum(ends.certificates)


def test_an_interleaved_order_is_that_of_its_seed(tmp_path):
    async def order():
        run = Run(MemoryLab(), Result("x", "", {}), UndoLog(tmp_path))
        run.rng.seed(3)
        return list(run.interleaved("abc", 2))

    assert asyncio.run(order()) == asyncio.run(order())


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_it_has_a_page_with_a_picture_of_a_real_run(kind):
    page = DOCS / f"{kind.name}.md"
    text = page.read_text(encoding="utf-8")
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert [titles[0], titles[-1]] == ["What the seed says", "Exercises"]
    assert {"Theory", "How it is measured", "The picture"} <= set(titles)
    assert f"]({kind.name}.svg)" in text
    assert (DOCS / f"{kind.name}.svg").stat().st_size > 1000
    assert "FIG_" not in text
