"""Tests for `omission` with synthetic latencies of a server that stalls once."""

import pytest

from experiments import ParameterError, Verdict, parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.omission import Omission, corrected
from tests.scenarios.runs import failed, predicted

USUAL = 0.02


def concluded(tmp_path, *, negative=False, stall=1.0, patient=True, failures=0, lag=0.001, recorded=1.0, **busy):
    """Return a synthetic run in which the server stalls for *stall* times the configured time.

    Users of the closed loop wait for each response before the next request if *patient* is true.  On a busy machine,
    the server takes ``drain`` seconds longer for the requests that have accumulated, and users pause ``pause`` times as
    long.
    """
    experiment = Omission(parameters.bind(Omission.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    p, begin = experiment.p, experiment.p.window_s / 2
    end = begin + stall * p.stall_s

    def latency(at):
        return USUAL + (end - at + busy.get("drain", 0.0) if begin <= at < end else 0.0)

    due = [n / p.rate for n in range(round(p.rate * p.window_s))]
    experiment.open = [(at, latency(at)) for at in due]
    for user in range(p.users):
        at = user * experiment.interval / p.users
        while at < p.window_s:
            experiment.closed.append((at, latency(at)))
            at += max(experiment.interval * busy.get("pause", 1.0), latency(at)) if patient else experiment.interval
    experiment.failed, experiment.lag, experiment.stalled, experiment.host = failures, lag, begin, "edge"
    times = [n / 10 for n in range(100)] + [9.9 + recorded * p.stall_s + n / 10 for n in range(50)]
    run.recorders.series["edge"] = Series(tuple(times), {})
    experiment.conclude(run)
    return run


def test_loops_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"stall": 0.7}, "open loop: p99", id="a-shorter-stall"),
        pytest.param({"stall": 1.3}, "closed loop, corrected: p95", id="a-longer-stall"),
        pytest.param({"patient": False}, "closed loop: p99", id="users-who-do-not-wait"),
        pytest.param({"patient": False}, "requests that the closed loop did not send", id="nothing-omitted"),
        pytest.param(
            {"recorded": 0.5}, "longest pause between the samples of the server's own recorder", id="no-stall"
        ),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_without_an_open_loop_fails(tmp_path):
    assert set(Omission.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


@pytest.mark.parametrize(
    "unfit",
    [{"failures": 1}, {"lag": 0.5}, {"drain": 0.9}, {"pause": 1.2}],
    ids=["a-failed-request", "late-requests", "a-slow-server", "slow-users"],
)
def test_a_load_that_did_not_run_as_planned_makes_the_run_invalid(unfit, tmp_path):
    assert concluded(tmp_path, **unfit).result.verdict is Verdict.INVALID


def test_the_correction_adds_the_requests_that_were_not_sent():
    found = corrected([(0.0, 0.01), (1.0, 0.35)], 0.1)
    assert [at for at, _ in found] == pytest.approx([0.0, 1.0, 1.1, 1.2, 1.3])
    assert [latency for _, latency in found] == pytest.approx([0.01, 0.35, 0.25, 0.15, 0.05])


@pytest.mark.parametrize("stall", [1.0, 13.0], ids=["invisible", "in-all-percentiles"])
def test_a_stall_that_the_percentiles_cannot_show_is_refused(stall):
    with pytest.raises(ParameterError, match="expected a stall of 2 to 20 % of window_s"):
        parameters.bind(Omission.settings, quick=False, given=[f"stall_s={stall}"])
