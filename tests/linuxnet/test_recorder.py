import asyncio
import contextlib
import dataclasses
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from linuxnet import counters, sock_diag
from linuxnet.recorder import SEARCH_EVERY, SOCKETS_SHARE, Recorder, Recording, Watch, sample
from linuxnet.tcp_info import STATES
from tests.waiting import comes_true


@pytest.fixture
def pair():
    """Yield both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            yield client, accepted


def test_a_socket_has_both_addresses_and_tcp_info(pair):
    client, accepted = pair
    client.sendall(b"x" * 1000)
    accepted.recv(1000)
    (found,) = sock_diag.sockets("ESTABLISHED", local_port=client.getsockname()[1], info=True)
    assert (found.local, found.remote, found.state) == (client.getsockname(), client.getpeername(), "ESTABLISHED")
    assert (found.info["cwnd"] >= 10, found.info["bytes_sent"]) == (True, 1000)


def test_unread_bytes_are_reported(pair):
    client, accepted = pair
    client.sendall(b"x" * 1000)
    (found,) = sock_diag.sockets(
        "ESTABLISHED", local_port=accepted.getsockname()[1], remote_port=client.getsockname()[1]
    )
    assert found.unread == 1000


def close_in_order(first, second):
    """Close both ends; *first* is in TIME_WAIT when the function returns."""
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    second.shutdown(socket.SHUT_WR)
    assert first.recv(1) == b""  # returns once the FIN of *second* has arrived
    first.close()
    second.close()


def test_a_socket_in_time_wait_is_found_without_a_process(pair):
    client, accepted = pair
    port, remote = client.getsockname()[1], accepted.getsockname()[1]
    close_in_order(client, accepted)
    assert [s.state for s in sock_diag.sockets(local_port=port, remote_port=remote)] == ["TIME-WAIT"]


@pytest.fixture
def sockets():
    """Yield a listener's port and six socket pairs: two open, one half-closed, three in TIME_WAIT (server side)."""
    with contextlib.ExitStack() as kept, socket.create_server(("127.0.0.1", 0)) as server:
        ends = []
        for _ in range(6):
            client = kept.enter_context(socket.create_connection(server.getsockname()))
            ends.append((client, kept.enter_context(server.accept()[0])))
        ends[2][0].shutdown(socket.SHUT_WR)
        assert ends[2][1].recv(1) == b""
        ends[2][1].sendall(b"x")  # this segment acknowledges the FIN, so the other end leaves FIN-WAIT-1
        assert ends[2][0].recv(1) == b"x"
        for client, accepted in ends[3:]:
            close_in_order(accepted, client)
        yield server.getsockname()[1], ends


def in_proc_net_tcp(*ports):
    """Return state and ports of the sockets in /proc/net/tcp whose local or remote port is one of *ports*."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        near, far = (int(each.rpartition(":")[2], 16) for each in (local, remote))
        if {near, far} & set(ports):
            found.append((STATES[int(state, 16)], near, far))
    return sorted(found)


@pytest.mark.parametrize("side", ["local_port", "remote_port"])
@pytest.mark.parametrize(
    "states",
    [("ESTABLISHED",), ("TIME-WAIT",), ("CLOSE-WAIT",), ("FIN-WAIT-2",), ("LISTEN",),
     ("ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1"), ("ESTABLISHED", "TIME-WAIT"), ("LAST-ACK",)],
    ids="-or-".join,
)  # fmt: skip
def test_filters_by_state_and_port_find_those_sockets_and_no_others(sockets, states, side):
    port, _ = sockets
    reported = sorted((s.state, s.local[1], s.remote[1]) for s in sock_diag.sockets(*states, **{side: port}))
    near = {"local_port": 1, "remote_port": 2}[side]
    assert reported == [each for each in in_proc_net_tcp(port) if each[0] in states and each[near] == port]


def test_the_fixture_has_sockets_for_every_filter(sockets):
    port, _ = sockets
    wanted = {"LISTEN": 1, "ESTABLISHED": 2, "CLOSE-WAIT": 1, "TIME-WAIT": 3}
    assert comes_true(lambda: Counter(state for state, near, _ in in_proc_net_tcp(port) if near == port) == wanted)


def test_refresh_returns_the_current_state(sockets):
    port, ends = sockets
    known = list(sock_diag.sockets("ESTABLISHED", local_port=port, info=True))
    ends[0][1].sendall(b"x" * 500)
    close_in_order(*reversed(ends[1]))
    now = {each.remote: (each.state, each.info.get("bytes_sent", 0)) for each in sock_diag.refresh(known, info=True)}
    assert now[ends[0][0].getsockname()] == ("ESTABLISHED", 500)
    assert {state for state, _ in now.values()} <= {"ESTABLISHED", "TIME-WAIT"}


def test_refresh_ignores_another_socket_between_the_same_ports(pair):
    client, _ = pair
    (known,) = sock_diag.sockets("ESTABLISHED", local_port=client.getsockname()[1])
    assert list(sock_diag.refresh([dataclasses.replace(known, cookie=b"\1" * 8)])) == []
    assert [each.local for each in sock_diag.refresh([known])] == [client.getsockname()]


def test_sockstat_counts_what_is_open(pair):
    assert counters.sockets()["tcp_inuse"] >= 2


def test_a_sample_has_counters_of_every_kind():
    assert {"Tcp.ActiveOpens", "TcpExt.ListenOverflows", "Udp.RcvbufErrors", "cpu_thread", "tcp_tw"} <= set(
        counters.sample()
    )


async def test_a_recording_has_rows_at_its_rate_and_its_own_cost():
    recorder = Recorder()
    began = time.monotonic()
    recorder.start(100, 5, None)
    await asyncio.sleep(0.3)  # time for about thirty samples
    recording = recorder.stop()
    assert recording is not None
    found = recording.as_json()
    assert 10 <= len(found["time"]) <= 40
    assert began <= found["time"][0] <= found["time"][-1] <= time.monotonic()
    assert 0 < found["cpu_s"] < 0.1
    assert isinstance(found["columns"]["Udp.SndbufErrors"], int)  # an unchanged column is a single number


async def test_watched_sockets_are_recorded(pair):
    client, _ = pair
    recorder = Recorder()
    recorder.start(100, 5, Watch(local_port=client.getsockname()[1]))
    await asyncio.sleep(0.05)  # time for about five samples
    recording = recorder.stop()
    assert recording is not None
    assert {name for _, name, _ in recording.sockets} == {
        f"127.0.0.1:{client.getsockname()[1]} 127.0.0.1:{client.getpeername()[1]}"
    }


def test_a_watched_socket_is_in_every_sample_with_its_bytes_sent_so_far(pair):
    client, accepted = pair
    recording = Recording(Watch(local_port=client.getsockname()[1]))
    for _ in range(SEARCH_EVERY):
        client.sendall(b"x" * 100)
        accepted.recv(100)
        recording.sockets_cost = 0.0  # keeps the CPU cost of reading sockets below its limit, even on a slow machine
        sample(recording)
    assert [info["bytes_sent"] for *_, info in recording.sockets] == [100 * (i + 1) for i in range(SEARCH_EVERY)]


def test_sockets_are_left_out_while_they_cost_more_than_their_share():
    recording = Recording(Watch(local_port=443))
    recording.add(0.0, {})
    recording.add(10.0, {})
    said = []
    for cost in (10, 11):
        recording.sockets_cost = cost * SOCKETS_SHARE
        said.append(recording.may_watch)
    recording.add(11.0, {})
    assert [*said, recording.may_watch] == [True, False, True]
