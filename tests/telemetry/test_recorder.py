import asyncio
import socket
import time

import pytest

from telemetry import AdminError, Request, counters, sock_diag
from telemetry.recorder import Recorder, Watch


@pytest.fixture
def pair():
    """A connection with its two ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            yield client, accepted


def test_the_kernel_tells_both_ends_of_a_connection_with_their_tcp_info(pair):
    client, accepted = pair
    client.sendall(b"x" * 1000)
    accepted.recv(1000)
    (found,) = sock_diag.sockets("ESTABLISHED", local_port=client.getsockname()[1], info=True)
    assert (found.local, found.remote, found.state) == (client.getsockname(), client.getpeername(), "ESTABLISHED")
    assert (found.info["cwnd"] >= 10, found.info["bytes_sent"]) == (True, 1000)


def test_octets_that_nobody_has_read_are_told(pair):
    client, accepted = pair
    client.sendall(b"x" * 1000)
    (found,) = sock_diag.sockets(
        "ESTABLISHED", local_port=accepted.getsockname()[1], remote_port=client.getsockname()[1]
    )
    assert found.unread == 1000


def test_a_socket_in_time_wait_is_told_though_no_process_has_it(pair):
    client, accepted = pair
    port, remote = client.getsockname()[1], accepted.getsockname()[1]
    client.close()
    accepted.recv(1)
    accepted.close()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not (
        states := [s.state for s in sock_diag.sockets(local_port=port, remote_port=remote)]
    ):
        time.sleep(0.01)
    assert states == ["TIME-WAIT"]


def test_sockstat_counts_what_is_open(pair):
    assert counters.sockets()["tcp_inuse"] >= 2


def test_counters_that_matter_are_read():
    assert {"Tcp.ActiveOpens", "TcpExt.ListenOverflows", "Udp.RcvbufErrors", "cpu_thread", "tcp_tw"} <= set(
        counters.sample()
    )


async def test_a_recording_has_rows_at_its_rate_and_knows_what_it_cost():
    recorder = Recorder()
    began = time.monotonic()
    recorder.start(100, 5, None)
    await asyncio.sleep(0.3)
    found = recorder.on_delete(Request("DELETE", "/admin/recorder"))
    assert 10 <= len(found["time"]) <= 40
    assert began <= found["time"][0] <= found["time"][-1] <= time.monotonic()
    assert 0 < found["cpu_s"] < 0.1
    assert isinstance(found["columns"]["Udp.SndbufErrors"], int)  # it did not change: one number


async def test_watched_sockets_are_recorded(pair):
    client, _ = pair
    recorder = Recorder()
    recorder.start(100, 5, Watch(local_port=client.getsockname()[1]))
    await asyncio.sleep(0.05)
    recording = recorder.stop()
    assert recording is not None
    assert {name for _, name, _ in recording.sockets} == {f"127.0.0.1:{client.getsockname()[1]} 127.0.0.1:{client.getpeername()[1]}"}  # fmt: skip


@pytest.mark.parametrize("body", [b'{"hz": 0.5, "more": 1}', b'{"hz": "fast"}', b'{"seconds": 1e9}', b'{"sockets": {"port": 1}}', b"[]"])  # fmt: skip
async def test_a_request_that_makes_no_sense_is_refused(body):
    with pytest.raises(AdminError) as refused:
        await Recorder().on_post(Request("POST", "/admin/recorder", body=body))
    assert refused.value.status == 400
