"""Tests for `limits`: the analysis of synthetic connection attempts, and real connections on loopback."""

import os
import socket
from contextlib import contextmanager

import pytest

from experiments import ParameterError, Verdict, parameters
from experiments.recorders import Series
from linuxnet.source_ports import Source
from reports.drawing import svg
from scenarios.instruments.address_translation import ELSEWHERE, INSIDE, INSIDE_PORTS, PORTS, TIMEOUT, Translated
from scenarios.instruments.openings import Opening, open_all, with_descriptors
from scenarios.instruments.reconnecting import BUSY, WELCOME, Clients, Served, Server
from scenarios.limits import BEYOND, MARGIN, NAT_RATE, RTT_MS, Limits
from tests.house.test_addresses import COMPOSE
from tests.scenarios.runs import failed, predicted
from theory import accept_queue

RTT = RTT_MS / 1000


def budget(spare, rate, error, *, took=0.0001):
    return [
        Opening(n / rate, RTT) if n < spare else Opening(n / rate, took, error) for n in range(round(spare + BEYOND))
    ]


def translated(ports=PORTS, error="TimeoutError", elsewhere=ELSEWHERE, entries=PORTS + ELSEWHERE):
    openings = [
        Opening(n / NAT_RATE, RTT) if n < ports else Opening(n / NAT_RATE, TIMEOUT, error)
        for n in range(PORTS + BEYOND)
    ]
    others = [Opening(0.0, RTT)] * elsewhere
    return Translated(openings, others, [(0.0, 0), (1.0, entries), (3.0, entries)])


def storms(experiment, *, slower=0.0, kept=1.0, late=0.0):
    """Fill in clients and servers that behave as the model predicts, apart from the deviations."""
    found = experiment.storms
    for arm in found.plain if experiment.negative else found.arms:
        model = arm.simulated(found.capacity, seed=1)
        clients = Clients(("", 0), arm.timeout, lambda _: 0.0, [at + slower for at in model.connected])
        found.found[arm.name] = clients, Served(0, round(kept * model.wasted), 0, late)


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
    experiment.nat = other.get("nat", translated())
    storms(experiment, **other.get("storms", {}))
    experiment.begun, experiment.host = round(spare * p.spare) + other.get("packets", 0), "edge"
    counted = 0 if negative else overflows
    run.recorders.series["edge"] = Series((0.0, 1.0), {"TcpExt.ListenOverflows": [0, counted]})
    experiment.conclude(run)
    return run


def test_limits_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert [chart.name for chart in run.findings.charts] == ["limits-nat", "limits", "limits-storm"]
    assert all(svg(chart).startswith("<svg") for chart in run.findings.charts)


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
        pytest.param({"nat": translated(ports=100)}, "NAT: connections until no port is left", id="fewer-NAT-ports"),
        pytest.param(
            {"nat": translated(error="ECONNREFUSED")}, "NAT: failures that only a time-out ends", id="a-reset"
        ),
        pytest.param(
            {"nat": translated(elsewhere=9)},
            "NAT: connections to another port of the server, meanwhile",
            id="a-budget-for-all",
        ),
        pytest.param({"nat": translated(entries=PORTS)}, "NAT: entries in the kernel's table", id="a-smaller-table"),
        pytest.param(
            {"storms": {"slower": 0.5}}, "storm, a full queue refuses at once: all connected after", id="a-slow-cure"
        ),
        pytest.param(
            {"storms": {"kept": 0.5}}, "storm, 90 clients retry at once: wasted handshakes", id="less-wasted-work"
        ),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_whose_server_accepts_fails(tmp_path):
    assert set(Limits.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_the_control_whose_clients_are_patient_has_no_storm(tmp_path):
    assert "storm, 90 clients retry at once: connected" in failed(concluded(tmp_path, negative=True))


def test_a_late_server_makes_the_run_invalid(tmp_path):
    assert concluded(tmp_path, storms={"late": 0.2}).result.verdict is Verdict.INVALID


@pytest.mark.parametrize("nat", [None, translated(entries=0)], ids=["no-conntrack", "no-nft"])
def test_a_machine_without_connection_tracking_leaves_the_nat_out(nat, tmp_path):
    run = concluded(tmp_path, nat=nat)
    assert failed(run) == []
    assert [text.partition(":")[0] for text in run.result.left_out] == ["NAT"]


def test_the_ports_of_the_nat_are_those_in_the_compose_file():
    nat = COMPOSE["services"]["lab"]["environment"]["HOST_NAT"]
    inside, outside = ([int(port) for port in ports.split("-")] for ports in nat.split(":"))
    assert inside == [INSIDE, INSIDE + INSIDE_PORTS - 1]
    assert outside[1] - outside[0] + 1 == PORTS
    assert PORTS + BEYOND + ELSEWHERE <= INSIDE_PORTS


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("storms=0.7,0.8", "below and above the tipping point"),
        ("storms=0.7,1.05", "not within 10 % of the tipping point, got 1.05"),
    ],
)
def test_storms_that_show_no_tipping_point_are_refused(given, says):
    with pytest.raises(ParameterError, match=says):
        parameters.bind(Limits.settings, quick=True, given=[given])


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
        found = await open_all(to, 500, [Source(ports=(low, low + 3))] * 6, 5.0)
    assert [each.error for each in found].count("EADDRNOTAVAIL") >= 2
    assert sum(not each.error for each in found) <= 4


@pytest.mark.parametrize("spare", [1, 5])
async def test_a_process_opens_as_many_connections_as_it_has_descriptors(spare):
    with listening() as to:
        found, _ = await with_descriptors(to, 500, spare, 8)
    assert [each.error for each in found] == [""] * spare + ["EMFILE"] * (8 - spare)


def reply(sock):
    with sock:
        return sock.recv(1)


def test_a_server_does_not_notice_that_a_client_has_given_up():
    with Server(20) as server:
        with socket.create_connection(server.address):
            pass  # gives up at once
        assert reply(socket.create_connection(server.address)) == WELCOME
        found = server.stop()
    assert (found.handshakes, found.wasted, found.refused) == (2, 1, 0)


def test_a_server_with_a_full_queue_refuses_at_once():
    with Server(0.01, admit=1) as server, socket.create_connection(server.address):
        assert reply(socket.create_connection(server.address)) == BUSY
        assert server.stop().refused == 1


async def test_clients_retry_until_they_are_connected():
    with Server(100, admit=1) as server:
        clients = Clients(server.address, 5.0, lambda _: 0.01)
        await clients.storm(5, 30.0, 1.0)
    assert len(clients.connected) == 5
    assert len(clients.lags) > 5


def test_a_source_port_outside_the_kernel_range_is_used():
    with listening() as to, socket.socket() as sock:
        Source(port=INSIDE).apply(sock)
        sock.connect(to)
        assert sock.getsockname()[1] == INSIDE


def test_a_server_is_not_interrupted_by_ctrl_c_in_the_terminal():
    with Server(20) as server:
        pid = server._child.pid
        assert os.getsid(pid) == pid != os.getsid(0)
