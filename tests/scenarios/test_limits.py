"""Tests for `limits`: the analysis of synthetic connection attempts, and real connections on loopback."""

import os
import socket
from contextlib import contextmanager

import pytest

from experiments import ParameterError, Verdict, parameters
from experiments.recorders import Series
from linuxnet.source_ports import Source
from reports.drawing import svg
from scenarios.instruments.openings import Opening, open_all, with_descriptors
from scenarios.limits import BEYOND, MARGIN, RTT_MS, Limits
from tests.scenarios.runs import failed, predicted
from theory import accept_queue

RTT = RTT_MS / 1000


def budget(spare, rate, error, *, took=0.0001):
    return [
        Opening(n / rate, RTT) if n < spare else Opening(n / rate, took, error) for n in range(round(spare + BEYOND))
    ]


def concluded(tmp_path, *, negative=False, size=1.0, later=0.0, overflows=2000, spare=1.0, **other):
    """Return a synthetic run that reaches each limit as predicted, apart from the deviations given as arguments."""
    experiment = Limits(parameters.bind(Limits.settings, quick=True), negative=negative)
    run, p = predicted(experiment, tmp_path), experiment.p
    full = size * accept_queue.full_at(p.rate, p.backlog) + RTT
    for n in range(round(p.rate * (experiment.back - MARGIN))):
        at = n / p.rate
        dropped = at >= full and not negative
        took = accept_queue.connect_s(experiment.back - at, RTT) + later if dropped else RTT
        experiment.queue.append(Opening(at, took, other.get("failing", "")))
    experiment.descriptors = budget(spare * p.spare, p.slow_rate, "EMFILE", took=other.get("took", 0.0001))
    experiment.ports = budget(spare * p.spare, p.slow_rate, other.get("error", "EADDRNOTAVAIL"))
    experiment.begun, experiment.host = round(spare * p.spare) + other.get("packets", 0), "edge"
    counted = 0 if negative else overflows
    run.recorders.series["edge"] = Series((0.0, 1.0), {"TcpExt.ListenOverflows": [0, counted]})
    experiment.conclude(run)
    return run


def test_limits_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert svg(run.findings.charts[0]).startswith("<svg")


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"size": 0.8}, "accept queue: connections until it is full", id="a-smaller-queue"),
        pytest.param({"size": 0.8}, "accept queue: full after", id="full-earlier"),
        pytest.param({"later": 0.5}, "accept queue: connect() after a dropped SYN", id="late-syns"),
        pytest.param({"overflows": 3}, "overflows that the server's kernel counted", id="drops-that-no-kernel-counted"),
        pytest.param({"spare": 0.9}, "descriptors: connections until none is left", id="fewer-descriptors"),
        pytest.param({"took": 0.2}, "descriptors: slowest failure with EMFILE", id="a-slow-failure"),
        pytest.param({"error": "ECONNREFUSED"}, "ports: none left after", id="another-error"),
        pytest.param({"packets": 1}, "packets sent for connections without a descriptor", id="a-packet-was-sent"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_whose_server_accepts_fails(tmp_path):
    assert set(Limits.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_connections_that_fail_for_another_reason_make_the_run_invalid(tmp_path):
    assert concluded(tmp_path, failing="ECONNREFUSED").result.verdict is Verdict.INVALID


def test_a_stall_in_which_the_queue_does_not_fill_is_refused():
    with pytest.raises(ParameterError, match="expected more connections in the stall than the queue holds"):
        parameters.bind(Limits.settings, quick=True, given=["rate=100"])


@contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield server.getsockname()


async def test_each_source_port_carries_one_connection_to_a_server():
    low = 50_000 + os.getpid() % 10_000
    with listening() as to:
        found = await open_all(to, 500, 6, Source(ports=(low, low + 3)), 5.0)
    assert [each.error for each in found].count("EADDRNOTAVAIL") >= 2
    assert sum(not each.error for each in found) <= 4


@pytest.mark.parametrize("spare", [1, 5])
def test_a_process_opens_as_many_connections_as_it_has_descriptors(spare):
    with listening() as to:
        found, _ = with_descriptors(to, 500, spare, 8)
    assert [each.error for each in found] == [""] * spare + ["EMFILE"] * (8 - spare)
