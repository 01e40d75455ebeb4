"""Tests for the conclusions and charts of `time-wait` with synthetic attempts that follow theory, without a network."""

import pytest

from experiments import parameters
from reports.drawing import svg
from scenarios.instruments.port_windows import Arm
from scenarios.instruments.time_wait_charts import cumulative
from scenarios.time_wait import REUSING, TimeWait, sustained
from tests.scenarios.runs import failed, predicted
from theory import time_wait
from waterfall.churn import NO_PORT, Attempt


@pytest.mark.parametrize(("rate", "ports", "waits"), [(32.0, 1024, True), (4.0, 1024, False)])
def test_the_wait_is_predicted_only_if_ports_run_out(rate, ports, waits):
    given = [f"rate={rate:g}", f"ports={ports}", "seconds=80"]
    prediction = TimeWait(parameters.bind(TimeWait.settings, quick=True, given=given)).predict()
    assert ("the wait" in prediction) is waits


def reused(ports, rate, seconds):
    """Return synthetic connection attempts of a host on which ports become available again 1.04 s after use."""
    busy: list[float] = []
    attempts = []
    for at in (n / rate for n in range(int(seconds * rate))):
        busy = [until for until in busy if until > at]
        found = len(busy) < ports
        if found:
            busy.append(at + 1.04)
        attempts.append(Attempt(at, at, "" if found else NO_PORT))
    return attempts


def test_ports_that_are_free_after_a_second_sustain_almost_as_many_connections_per_second():
    assert sustained(reused(24, 96, 12.0)) == pytest.approx(24 / 1.04, rel=0.03)


@pytest.fixture
def exhausted(tmp_path):
    """Return an experiment and its synthetic run, in which the outcomes of all connection attempts follow theory."""
    experiment = TimeWait(parameters.bind(TimeWait.settings, quick=True))
    run = predicted(experiment, tmp_path)
    experiment._lay_out(run, {33_100})
    for arm in experiment.arms.values():
        ports = arm.ports
        runs_out = arm.closes == "client" and not arm.uses
        for number in range(int(experiment.p.seconds * arm.rate)):
            at = number / arm.rate
            gone = runs_out and not time_wait.success_share(arm.rate, at, ports)
            arm.attempts.append(Attempt(at, at, NO_PORT if gone else ""))
        growth = arm.rate / (arm.uses or 1) if arm.closes == "client" else 0
        arm.waiting = [(at / 4, int(min(ports, growth * at / 4))) for at in range(int(experiment.p.seconds * 4))]
    few = experiment.reuse_ports
    for name, sources in REUSING.items():
        experiment.reusing[name] = reused(few * sources, few * 4, 12.0)
    experiment.reuser = {"tw_reuse": "1"}
    experiment.on_the_edge = round(time_wait.ports_held(experiment.p.rate, experiment.p.seconds, experiment.p.ports))
    return experiment, run


def test_attempts_that_follow_theory_pass(exhausted):
    experiment, run = exhausted
    experiment.conclude(run)
    assert failed(run) == []
    assert {row.name: row.residual for row in run.result.rows}["ports exhausted, 64/s"] == pytest.approx(0, abs=0.02)
    assert [svg(chart).count("<circle") > 2 for chart in run.findings.charts] == [True, False, True, True]


def test_each_cure_has_its_predicted_and_measured_factor(exhausted):
    experiment, run = exhausted
    experiment.conclude(run)
    rows = {
        name: row for row in run.result.rows for name in experiment._multipliers() if row.name.endswith(f", {name}")
    }
    factors = {
        "two destinations": 2,
        "twice the ports": 2,
        "10 requests each": 10,
        "tcp_tw_reuse": 57.7,
        "tcp_tw_reuse, two addresses": 115.5,
    }
    assert {name: row.predicted for name, row in rows.items()} == pytest.approx(factors, rel=0.001)
    assert {name: row.measured.value for name, row in rows.items()} == pytest.approx(factors, rel=0.05)


def test_a_host_that_does_not_reuse_ports_is_left_out(exhausted):
    experiment, run = exhausted
    experiment.reuser = {"tw_reuse": "2"}
    experiment.conclude(run)
    assert failed(run) == []
    assert "tcp_tw_reuse=2, expected 1" in run.result.left_out[-1]


def test_an_edge_without_waiting_sockets_fails(exhausted):
    experiment, run = exhausted
    experiment.on_the_edge = 0
    experiment.conclude(run)
    assert failed(run) == ["on the edge, which closes first"]


def test_ports_that_never_run_out_fail(exhausted):
    experiment, run = exhausted
    experiment.base.attempts = [each._replace(error="") for each in experiment.base.attempts]
    experiment.conclude(run)
    assert "ports exhausted" in failed(run)


def arm(name, served, of=100):
    made = Arm(name, 10, (1, 50))
    made.attempts = [Attempt(i / 10, i / 10, "" if i < served else NO_PORT) for i in range(of)]
    return made


def test_cures_with_equal_totals_share_a_legend_entry():
    base, others = arm("10/s", 50), [arm("two destinations", 99), arm("twice the ports", 100), arm("half", 70)]
    (panel,) = cumulative(base, others, 10.0, 50).panels
    assert [mark.label for mark in panel.marks if mark.label] == [
        "client closes first: 50",
        "two destinations = twice the ports: 99",
        "half: 70",
    ]
    assert len(panel.marks) == 4  # the panel contains every curve
