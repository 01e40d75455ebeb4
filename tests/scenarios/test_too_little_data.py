"""Tests for parameters that yield too little data: they are rejected, or the run is invalid."""

import pytest

from experiments import ParameterError, Verdict, parameters
from scenarios.geography import Geography
from scenarios.handshake import Handshake
from scenarios.time_wait import TimeWait
from scenarios.ttl import Ttl
from tests.scenarios.runs import predicted
from tests.scenarios.test_keepalive_race import concluded
from waterfall.churn import NO_PORT, Attempt


@pytest.mark.parametrize("kind", [Handshake, Geography])
@pytest.mark.parametrize("given", ["5", "20,60", "20,20,20"])
def test_a_slope_through_fewer_than_three_round_trip_times_is_refused(kind, given):
    with pytest.raises(ParameterError, match="expected rtt_ms to be at least 3 different values"):
        parameters.bind(kind.settings, quick=True, given=[f"rtt_ms={given}"])
    assert len(parameters.bind(kind.settings, quick=True, given=["rtt_ms=5,20,50"]).rtt_ms) == 3


@pytest.mark.parametrize(("silences", "verdict"), [(100, Verdict.INVALID), (3000, Verdict.PASS)])
def test_few_silences_make_the_keepalive_race_invalid(silences, verdict, tmp_path):
    result = concluded(tmp_path, silences=silences).result
    assert result.verdict is verdict
    if verdict is Verdict.INVALID:
        assert f"enough silences in the sweep: expected >= 800, got {silences}" in result.reasons


def test_few_ports_make_time_wait_invalid(tmp_path):
    experiment = TimeWait(parameters.bind(TimeWait.settings, quick=True, given=["ports=32"]))
    run = predicted(experiment, tmp_path)
    experiment._lay_out(run, set())
    for arm in experiment.arms.values():
        times = [i / arm.rate for i in range(int(arm.rate * experiment.p.seconds))]
        arm.attempts = [Attempt(at, at, NO_PORT if i >= arm.ports else "") for i, at in enumerate(times)]
    experiment._gates(run)
    experiment._exhaustion(run)
    assert (run.result.verdict, run.result.reasons) == (
        Verdict.INVALID,
        ["enough ports in a window: expected >= 128, got 32"],
    )


def test_attempts_that_are_late_against_an_early_exhaustion_make_time_wait_invalid(tmp_path):
    experiment = TimeWait(parameters.bind(TimeWait.settings, quick=True, given=["ports=128"]))
    run = predicted(experiment, tmp_path)
    experiment._lay_out(run, set())
    experiment.base.attempts = [
        Attempt(i / 64, i / 64 + 0.06, "") for i in range(100)
    ]  # attempts are 60 ms late; in the fastest arm, ports run out after 1 s
    experiment._gates(run)
    assert run.result.reasons[0].startswith("send lag p99: expected <= 50 ms")


def test_few_names_and_clients_make_ttl_invalid(tmp_path):
    experiment = Ttl(parameters.bind(Ttl.settings, quick=True, given=["names=10", "clients=10"]))
    run = predicted(experiment, tmp_path)
    for ttl in experiment.p.ttl_s:
        experiment.asked[ttl], experiment.upstream[ttl] = 56, 30
        experiment.answers[ttl] = [(0.1 * i, True) for i in range(20)]
    experiment.conclude(run)
    assert run.result.verdict is Verdict.INVALID
    assert {check.name for check in run.result.validity if not check.ok} >= {
        "enough queries, T = 4 s", "enough answers within T of the change, T = 4 s", "enough requests at the end",
    }  # fmt: skip
