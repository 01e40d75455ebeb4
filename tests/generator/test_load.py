"""Tests for open-loop load over real connections: kinds of connection, phases, causes of failure, TIME-WAIT sockets."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generator import Closes, Load, LoadError, Request, Schedule, Source, Tally, Target, constant
from tests.generator.conftest import Site
from tests.peers import NAME, OK, Papers, replying


def brief(rate: float = 50, seconds: float = 0.2) -> Schedule:
    return Schedule(constant(rate, seconds))


def sockets_on(port: int, state: str) -> list[int]:
    """Return the local ports of TCP sockets whose remote port is *port*; *state* is a hexadecimal kernel TCP state."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == state and words[2].endswith(f":{port:04X}"):
            found.append(int(words[1].partition(":")[2], 16))
    return found


TIME_WAIT = "06"


async def test_a_fresh_request_goes_through_every_phase(site: Site) -> None:
    target = await site.serve(replying(OK, delay=0.02), site.papers.server())
    load = Load(target, brief(), kinds=("fresh",))
    await load.run()
    assert len(load.requests) == 10
    for each in load.requests:
        assert each.error == ""
        assert (each.status, each.version, each.serial, each.reused) == (200, "1.3", site.papers.serial, False)
        assert list(each.phases()) == ["connect", "tls", "first_byte", "receive"]
        assert each.first_byte is not None
        assert each.first_byte >= 0.02
        assert sum(each.phases().values()) <= each.service_time
        assert each.body_bytes == 2
        assert each.bytes_sent > 200
        assert each.bytes_received > 1000  # the received bytes include the certificate chain
    # The sum of the phases is the service time, except for the generator's own processing.
    rest = sorted(each.service_time - sum(each.phases().values()) for each in load.requests)
    assert rest[5] < 0.005
    assert site.connections == 10


async def test_pooled_requests_share_connections(site: Site) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    load = Load(target, brief(), kinds=("pooled",), pool=1)
    await load.run()
    assert [each.error for each in load.requests] == [""] * 10
    assert site.connections == 1
    assert [each.reused for each in load.requests] == [False] + [True] * 9
    assert list(load.requests[-1].phases())[-2:] == ["first_byte", "receive"]
    assert (load.requests[-1].dns, load.requests[-1].connect, load.requests[-1].tls) == (None, None, None)
    assert load.requests[-1].serial == site.papers.serial


@pytest.mark.parametrize(
    ("version", "name"),
    [
        pytest.param(ssl.TLSVersion.TLSv1_3, "1.3", id="tls-1.3"),
        pytest.param(ssl.TLSVersion.TLSv1_2, "1.2", id="tls-1.2"),
    ],
)
async def test_a_session_is_resumed_on_a_new_connection(site: Site, version: ssl.TLSVersion, name: str) -> None:
    target = await site.serve(replying(OK), site.papers.server(version=version))
    load = Load(target, brief(), kinds=("resumed",))
    await load.run()
    assert [each.error for each in load.requests] == [""] * 10
    assert site.connections == 10
    first, later = load.requests[0], load.requests[-1]
    assert not first.resumed
    # On a busy machine, requests may start before the first one has received a TLS session.
    assert [each.resumed for each in load.requests if each.sent > first.done].count(False) == 0
    assert later.resumed
    assert {each.version for each in load.requests} == {name}
    assert later.bytes_received < first.bytes_received / 1.5  # a resumed handshake has no certificate chain


async def test_plain_http_has_no_tls_phase(site: Site) -> None:
    target = await site.serve(replying(OK))
    load = Load(target, brief(), kinds=("fresh", "pooled"))
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert list(load.requests[0].phases()) == ["connect", "first_byte", "receive"]
    assert load.requests[0].bytes_received == len(OK)


async def test_a_bare_connection_is_done_when_connected(site: Site) -> None:
    target = await site.serve(replying(OK))
    load = Load(target, brief(), kinds=("tcp",))
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert [list(each.phases()) for each in load.requests] == [["connect"]] * 10


@pytest.mark.parametrize("tls", [pytest.param(True, id="https"), pytest.param(False, id="http")])
@pytest.mark.parametrize(
    ("closes", "ours"), [("client", True), ("server", False), ("abort", False)], ids=["client", "server", "abort"]
)
async def test_the_side_that_closes_first_keeps_time_wait(site: Site, closes: Closes, ours: bool, tls: bool) -> None:
    target = await site.serve(replying(OK), site.papers.server() if tls else None)
    load = Load(target, brief(), kinds=("fresh",), closes=closes)
    await load.run()
    assert {each.error for each in load.requests} == {""}
    ports = {each.local_port for each in load.requests}
    # Compare only this test's source ports, since an earlier test may have left TIME-WAIT sockets for this server port.
    assert ports.intersection(sockets_on(target.port, TIME_WAIT)) == (ports if ours else set())


async def test_the_pool_limits_connections_and_waiting_is_a_phase(site: Site) -> None:
    target = await site.serve(replying(OK, delay=0.05))
    load = Load(target, brief(100, 0.2), kinds=("pooled",), pool=2)
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert site.connections == 2
    assert load.requests[0].wait is None
    # Two connections need 500 ms for twenty requests of 50 ms each.  The last request is due at 190 ms but starts at
    # 450 ms, so it waits 260 ms.
    assert 0.2 < (load.requests[-1].wait or 0.0) < 2.0


async def test_paths_are_used_in_turn_and_then_the_target_s_own(site: Site) -> None:
    asked = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked.append(head.split()[1].decode())
            writer.write(OK)

    target = await site.serve(script)
    load = Load(target, brief(50, 0.1), kinds=("fresh", "pooled"), paths=iter(["/1", "/2", "/3"]))
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert asked == ["/1", "/2", "/3", "/", "/"]


async def test_a_connection_that_the_server_closes_is_not_reused(site: Site) -> None:
    target = await site.serve(replying(OK, close=True))
    load = Load(target, brief(20, 0.3), kinds=("pooled",))
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert site.connections == 6


def close_with_notify(listener: socket.socket, context: ssl.SSLContext, over: threading.Event) -> None:
    """Answer one request on each of two connections, send close_notify, and send the FIN only when *over* is set."""
    listener.settimeout(5)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sock = stack.enter_context(listener.accept()[0])
            tls = stack.enter_context(context.wrap_socket(sock, server_side=True))
            tls.recv(65536)
            tls.sendall(OK)
            time.sleep(0.05)  # the client reads the response first, and close_notify separately
            tls.settimeout(0.01)
            with contextlib.suppress(OSError):  # the client's close_notify does not arrive within the time-out
                tls.unwrap()
        over.wait(5)


async def test_a_connection_is_not_reused_after_close_notify_and_before_the_fin(papers: Papers) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(close_with_notify, listener, papers.server(), over)
        target = Target(NAME, listener.getsockname()[1], "/", papers.trust, address="127.0.0.1")
        load = Load(target, brief(5, 0.4), kinds=("pooled",))
        try:
            await load.run()
        finally:
            over.set()
        served.result(5)
    assert [each.error for each in load.requests] == ["", ""]


async def test_a_body_may_end_with_the_connection(site: Site) -> None:
    target = await site.serve(replying(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True))
    load = Load(target, brief(10, 0.2), kinds=("fresh",), check=lambda body: "" if body == b"all of it" else "wrong")
    await load.run()
    assert {each.error for each in load.requests} == {""}


async def test_requests_begin_on_schedule_even_without_responses(site: Site) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    target = await site.serve(silent)
    load = Load(target, brief(100, 0.3), kinds=("fresh",), timeout=0.5)
    await load.run()
    assert len(load.requests) == 30
    assert load.requests[-1].intended == pytest.approx(0.29)
    assert load.lag().percentile(50) < 0.02
    assert {(each.error, each.failed_in) for each in load.requests} == {("timeout", "first_byte")}


async def lost(load: Load) -> Request:
    await load.run()
    (one,) = load.requests
    return one


@pytest.mark.parametrize(
    ("reply", "error", "phase"),
    [
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503", "receive", id="status"),
        pytest.param(b"SSH-2.0-nonsense\r\n\r\n", "malformed", "receive", id="no-http"),
        pytest.param(
            b"HTTP/1.1 101 No\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "malformed", "receive", id="upgrade"
        ),
        pytest.param(b"", "closed", "first_byte", id="closed-without-a-response"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "truncated", "receive", id="truncated"),
        pytest.param(OK, "wrong body", "receive", id="wrong-body"),
    ],
)
@pytest.mark.parametrize("tls", [pytest.param(True, id="https"), pytest.param(False, id="http")])
async def test_a_lost_request_says_why_and_where(site: Site, reply: bytes, error: str, phase: str, tls: bool) -> None:
    target = await site.serve(replying(reply, close=True), site.papers.server() if tls else None)
    one = await lost(Load(target, brief(10, 0.1), kinds=("fresh",), check=lambda _: "wrong body"))
    assert (one.error, one.failed_in) == (error, phase)


async def test_a_refused_connection_is_lost_in_connect(site: Site) -> None:
    target = await site.serve(replying(OK))
    await site.stack.aclose()
    one = await lost(Load(target, brief(10, 0.1), kinds=("fresh",)))
    assert (one.error, one.failed_in) == ("connect: ECONNREFUSED", "connect")


@pytest.mark.parametrize(
    ("name", "end", "error"),
    [
        pytest.param("www.example.com", -100.0, "certificate: certificate has expired", id="expired"),
        pytest.param("other.example.com", 600.0, "certificate: Hostname mismatch", id="other-name"),
    ],
)
async def test_an_invalid_certificate_is_refused(site: Site, name: str, end: float, error: str) -> None:
    target = await site.serve(replying(OK), site.papers.server(name, begin=-700.0, end=end))
    one = await lost(Load(target, brief(10, 0.1), kinds=("fresh",)))
    assert one.error.startswith(error)
    assert one.failed_in == "tls"


async def test_a_chain_to_another_root_is_refused(site: Site, tmp_path: Path) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    other = Papers(tmp_path)
    one = await lost(Load(dataclasses.replace(target, trust=other.trust), brief(10, 0.1), kinds=("fresh",)))
    assert one.error.startswith("certificate: ")


async def test_a_name_without_address_is_lost_in_dns(site: Site) -> None:
    target = await site.serve(replying(OK))
    load = Load(dataclasses.replace(target, address=None), brief(10, 0.1), servers=[("127.0.0.1", 9)], timeout=0.3)
    one = await lost(load)
    assert (one.error, one.failed_in) == ("name: Timeout", "dns")


async def test_source_ports_come_from_the_window(site: Site) -> None:
    target = await site.serve(replying(OK))
    load = Load(target, brief(), kinds=("fresh",), source=Source(ports=(41000, 41049)))
    await load.run()
    assert {each.error for each in load.requests} == {""}
    assert all(41000 <= each.local_port <= 41049 for each in load.requests)


async def test_a_window_without_a_free_port_is_counted_by_cause(site: Site) -> None:
    target = await site.serve(replying(OK, delay=0.5))
    load = Load(target, brief(100, 0.2), kinds=("fresh",), source=Source(ports=(42000, 42004)))
    await load.run()
    errors = Tally(load.requests).errors
    # Five source ports are available, or fewer if another program uses one of them.
    assert 15 <= errors["fresh", "connect: EADDRNOTAVAIL"] == errors.total() < 20


async def test_a_window_that_the_kernel_would_ignore_is_refused(site: Site) -> None:
    target = await site.serve(replying(OK))
    with pytest.raises(LoadError, match="expected source ports within"):
        Load(target, 1.0, source=Source(ports=(1, 2)))


async def test_an_unknown_kind_is_refused(site: Site) -> None:
    target = await site.serve(replying(OK))
    with pytest.raises(LoadError, match="expected kinds among fresh, pooled, resumed, tcp, got 'warm'"):
        Load(target, 1.0, kinds=("warm",))  # type: ignore[arg-type]  # invalid on purpose


async def test_stopping_waits_for_requests_in_flight_and_closes_everything(site: Site) -> None:
    target = await site.serve(replying(OK, delay=0.1))
    load, stop = Load(target, 50.0, kinds=("fresh", "pooled")), asyncio.Event()
    asyncio.get_running_loop().call_later(0.15, stop.set)
    await load.run(stop)
    assert all(each.done and not each.error for each in load.requests)
    assert repr(load).endswith("in_flight=0 waiting=0 open=0 idle=0>")


async def test_the_share_of_a_core_is_recorded(site: Site) -> None:
    target = await site.serve(replying(OK))
    load = Load(target, brief(200, 0.5), kinds=("pooled",), keep=False)
    await load.run()
    assert load.requests == []
    assert 0 < load.starvation().cpu <= 1
    assert len(load.lag()) == 100
