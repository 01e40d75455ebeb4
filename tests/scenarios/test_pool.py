"""Tests for the conclusions of `pool` with synthetic requests that wait as in the queueing model, without a lab."""

import pytest

from experiments import parameters
from experiments.recorders import HERE, Series
from experiments.result import Verdict
from generator import Request
from scenarios.pool import COLD_MS, COLD_RATE, COLD_SECONDS, Pool
from tests.scenarios.runs import failed, predicted
from theory import queueing

#: Seconds that edge and origin add to the requested delay of each request.
ON_TOP = 0.002


def made(*given, seed=1, negative=False):
    experiment = Pool(parameters.bind(Pool.settings, quick=True, given=given), negative=negative)
    experiment.seed = seed
    return experiment


def concluded(experiment, tmp_path, *, discipline=list):
    """Return a synthetic run whose requests follow theory.

    *discipline* may change each request's tuple of arrival time, holding time and waiting time, all in seconds.
    """
    run = predicted(experiment, tmp_path)
    count, rtt = int(COLD_SECONDS * COLD_RATE), experiment.p.rtt_ms / 1000
    for kind, trips in (("fresh", 3), ("pooled", 1)):
        took = trips * rtt + COLD_MS / 1000 + ON_TOP
        experiment.cold[kind] = [
            Request(i / COLD_RATE, kind, i / COLD_RATE, i / COLD_RATE + took) for i in range(count)
        ]
    for arm in experiment.arms:
        arrivals = list(arm.schedule.times())
        held = [ms / 1000 + ON_TOP for ms in arm.asked]
        for at, hold, wait in discipline(zip(arrivals, held, queueing.waits(arrivals, held, arm.size), strict=True)):
            arm.requests.append(Request(at, "pooled", at, at + wait + hold, wait=wait))
    experiment.spans = {"fresh requests": (0, 3), "pools": (4, 30)}
    opens = [0, count, count, count + sum(arm.size for arm in experiment.arms)]
    run.recorders.series[HERE] = Series((0, 3, 4, 30), {"Tcp.ActiveOpens": opens})
    experiment.conclude(run)
    return run


def test_requests_that_wait_as_predicted_pass(tmp_path):
    run = concluded(made(), tmp_path)
    assert (run.result.verdict, failed(run)) == (Verdict.PASS, [])
    assert len(run.findings.charts) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_control_fails_because_the_other_model_is_closer(tmp_path, seed):
    run = concluded(made(seed=seed, negative=True), tmp_path)
    assert run.result.verdict is Verdict.FAIL
    assert "wait follows its own model" in failed(run)


def test_requests_that_never_wait_fail(tmp_path):
    run = concluded(made(), tmp_path, discipline=lambda rows: ((at, hold, 1e-6) for at, hold, _ in rows))
    assert "wait, exponential, 5 connections" in failed(run)


def test_the_seed_determines_the_requests():
    (one, same), other = (made(seed=4).arms for _ in range(2)), made(seed=5).arms
    drawn = [[(list(arm.schedule.times()), arm.asked) for arm in arms] for arms in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_pool_of_the_mean_number_in_use_has_no_long_run_mean(tmp_path):
    run = concluded(made("sizes=4"), tmp_path)
    assert any("too many for a mean within minutes" in text for text in run.result.left_out)
    assert not [row.name for row in run.result.rows if "long run" in row.name]
