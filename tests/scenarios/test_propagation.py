"""Tests for `propagation` with synthetic times: passing runs, deviations that fail, and the negative control."""

import math

import pytest

from experiments import Verdict, parameters
from nameserver.notify import DELAY, RETRIES
from reports.drawing import svg
from scenarios.propagation import (
    CACHES,
    CLIENTS,
    LEAD,
    POLLED,
    PRIMARY_ADDRESS,
    RESOLVER,
    SECONDARY_ADDRESS,
    Propagation,
    _outage,
    _plan,
)
from tests.scenarios.runs import failed, predicted
from theory import propagation as theory


def concluded(tmp_path, *, lag=0.0, late=0.0, longer=0.0, refused=1, failures=0, without=CLIENTS, polls=2):
    """Return a synthetic run with the predicted times, apart from the deviations given as arguments.

    The secondary receives changes *lag* seconds later, cached records expire *late* seconds later, and clients are
    without the record for *longer* additional seconds.  *without* is the number of clients that get no answer while the
    record is missing.
    """
    experiment = Propagation(parameters.bind(Propagation.settings, quick=True))
    run, p = predicted(experiment, tmp_path), experiment.p
    for lost in p.lost:
        experiment.lags[lost] = [theory.retried_lag(p.rtt_ms / 1000, lost, DELAY, RETRIES) + lag] * 2
    experiment.polled = [theory.polled_lag(p.rtt_ms / 1000, LEAD) + lag] * 2
    experiment.polls = polls
    experiment.caches = [(age, p.ttl_s - age + late) for age in (p.ttl_s * i / CACHES for i in range(CACHES))]
    for number, expires in enumerate(experiment._expiries()):
        end = expires + experiment._without(expires) + longer
        asked = [i * 0.02 for i in range(1000)]
        experiment.asked[number] = [(at, number >= without or not expires <= at < end) for at in asked]
    experiment.refused, experiment.failures, experiment.gone = refused, failures, p.gone_s
    experiment.conclude(run)
    return run


def test_times_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"lag": 0.5}, "lag of the secondary, 0 NOTIFY lost", id="a-slow-secondary"),
        pytest.param({"lag": math.inf}, "lag of the secondary, 1 NOTIFY lost", id="a-change-that-never-arrives"),
        pytest.param({"lag": 1.0}, POLLED, id="a-secondary-that-waits-for-the-next-notify"),
        pytest.param(
            {"polls": 1}, "SOA queries of the secondary in the primary's log, at least one per change", id="no-poll"
        ),
        pytest.param({"late": 0.5}, "cached records: largest difference from T - age", id="a-cache-keeps-too-long"),
        pytest.param({"longer": 1.0}, "seconds without the record, per client", id="negative-answers-live-longer"),
        pytest.param({"failures": 3}, "queries without an address, with prerequisites", id="the-record-is-lost-again"),
        # As in the negative control, in which the writers send no prerequisites.
        pytest.param({"refused": 0}, Propagation.control.fails[0], id="a-stale-plan-is-accepted"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_a_record_that_no_client_missed_makes_the_run_invalid(tmp_path):
    assert concluded(tmp_path, without=2).result.verdict is Verdict.INVALID


def test_without_nsupdate_only_the_race_is_left_out(tmp_path):
    assert failed(concluded(tmp_path, refused=None)) == []


@pytest.mark.parametrize(
    ("asked", "outage"),
    [
        pytest.param([(-1.0, False), (0.5, True), (1.0, False), (2.0, False), (3.0, True)], (1.0, 3.0), id="recovers"),
        pytest.param([(0.5, True), (1.0, False)], (1.0, math.inf), id="never-recovers"),
        pytest.param([(0.5, True)], None, id="never-fails"),
    ],
)
def test_the_outage_of_a_client(asked, outage):
    assert _outage(asked) == outage


def test_a_plan_replaces_addresses_and_its_own_number():
    commands = _plan(7, 3)
    assert [line.split()[1] for line in commands] == ["delete", "add", "delete", "add"]
    assert any("A 192.0.2.7" in line for line in commands)
    assert any('TXT "7"' in line for line in commands)


def test_the_addresses_are_those_of_the_lab():
    assert (PRIMARY_ADDRESS[0], SECONDARY_ADDRESS, RESOLVER[0]) == ("198.19.20.53", "198.19.30.53", "198.19.2.53")
