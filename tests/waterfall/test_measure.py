"""Tests for real requests to servers on loopback, both correct and faulty."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import dnslib
import pytest

import serving
from stub import Stub
from tests.edge.conftest import Bench
from tests.peers import OK, Papers, read_request, replying
from waterfall import (
    BadCertificateError,
    BadURLError,
    ConnectError,
    NameLookupError,
    ResponseError,
    Session,
    WaterfallError,
    measure,
)
from waterfall.keylog import KeyLog
from waterfall.measure import split
from waterfall.model import PHASES, Phase, Trace

HOST = "www.example.com"
NOWHERE = [("127.0.0.1", 9)]


def session(papers: Papers, tls: str | None = None, **more) -> Session:
    return Session(Stub(NOWHERE, timeout=0.1, attempts=1), papers.trust, tls, timeout=1.0, **more)


async def ask(who: Session, port: int, url: str = f"https://{HOST}/") -> Trace:
    return await asyncio.to_thread(measure, url, who, ("127.0.0.1", port))


def phase(trace: Trace, name: str) -> Phase:
    found = trace.phase(name)
    assert found is not None, name
    return found


@pytest.mark.parametrize(("tls", "trips", "resumed"), [("1.2", 2, 1), ("1.3", 1, 1)], ids=["1.2", "1.3"])
async def test_round_trips_of_the_handshake(bench: Bench, papers: Papers, tls: str, trips: int, resumed: int) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    who = session(papers, tls)
    phases = [phase(await ask(who, port), "tls") for _ in range(2)]
    assert [each.round_trips for each in phases] == [trips, resumed]
    assert [each.detail["version"] for each in phases] == [f"TLSv{tls}"] * 2
    assert [each.detail["resumed"] for each in phases] == [False, True]
    assert phases[0].bytes_received > phases[1].bytes_received, "a resumed handshake has no certificates"


async def test_with_no_resume_no_session_is_resumed(bench: Bench, papers: Papers) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    who = session(papers, "1.2", resume=False)
    assert [phase(await ask(who, port), "tls").round_trips for _ in range(2)] == [2, 2]


async def test_phases_are_in_order_and_without_gaps(bench: Bench, papers: Papers) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    gaps = []
    for _ in range(3):  # the process may be descheduled between two phases, but not between the same two in each trace
        trace = await ask(session(papers), port)
        assert tuple(each.name for each in trace.phases) == PHASES
        gaps.append([b.start_ms - (a.start_ms + a.measured_ms) for a, b in pairwise(trace.phases)])
    assert min(map(min, gaps)) >= -0.001
    assert [min(each) for each in zip(*gaps, strict=True)] == pytest.approx([0] * (len(PHASES) - 1), abs=5)
    assert trace.status == "HTTP/1.1 200 OK"
    assert phase(trace, "body").detail["body_bytes"] == 2
    assert all(each.cpu_ms <= each.measured_ms + 1 for each in trace.phases)


async def test_the_client_ends_in_time_wait(bench: Bench) -> None:
    port = await bench.start(replying(OK))
    trace = await ask(Session(Stub(NOWHERE)), port, f"http://{HOST}/")
    assert trace.phase("tls") is None
    assert phase(trace, "close").detail | {"state": "TIME-WAIT", "closed_by": "client"} == phase(trace, "close").detail
    assert trace.kernel_states[0][-1] == "ESTABLISHED"
    assert trace.kernel_states[-1][-1] == "TIME-WAIT"


async def test_a_server_that_closes_first_has_time_wait(bench: Bench) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")

    port = await bench.start(script)
    close = phase(await ask(Session(Stub(NOWHERE)), port, f"http://{HOST}/"), "close")
    assert (close.detail["closed_by"], close.detail["state"], close.round_trips) == ("server", "CLOSED", 0)


async def test_a_response_in_two_parts_waits_once(bench: Bench) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await asyncio.sleep(0.05)  # the wait that the test measures
        writer.write(b"half")

    trace = await ask(Session(Stub(NOWHERE)), await bench.start(script), f"http://{HOST}/")
    assert phase(trace, "body").detail["body_bytes"] == 8
    assert phase(trace, "body").measured_ms >= 30


async def test_secrets_are_logged_only_on_request(bench: Bench, papers: Papers) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    with KeyLog() as log:
        await ask(session(papers, "1.3", keylog=log), port)
        text = log.text()
        assert not Path(log.path).resolve().exists(), "the log is a file of its own, on no disk"
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in text
    silent = session(papers, "1.3")
    await ask(silent, port)
    assert silent.tls_context().keylog_filename is None


# --- failures ----------------------------------------------------------------------------------------------------


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def after_request(reply: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(reply)

    return script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (silence, "no response for 1 s"),
        (after_request(b""), "closed the connection without a response"),
        (after_request(b"SSH-2.0-OpenSSH\r\n"), "expected an HTTP response"),
        (
            after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
            "closed before the response was complete",
        ),
    ],
    ids=["silent", "nothing", "not-http", "cut"],
)
async def test_missing_and_malformed_responses(bench: Bench, script, message: str) -> None:
    port = await bench.start(script)
    with pytest.raises(ResponseError, match=message):
        await ask(Session(Stub(NOWHERE), timeout=1.0), port, f"http://{HOST}/")


async def test_a_silent_server_ends_a_tls_handshake(bench: Bench, papers: Papers) -> None:
    with pytest.raises(BadCertificateError, match="no TLS response within 1 s"):
        await ask(session(papers), await bench.start(silence))


async def test_a_plain_server_where_tls_is_expected(bench: Bench, papers: Papers) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(BadCertificateError, match="TLS failed: "):
        await ask(session(papers), await bench.start(script))


async def test_bad_certificates(bench: Bench, papers: Papers, tmp_path: Path) -> None:
    stranger = Papers(tmp_path)
    cases = [
        (stranger.server(HOST), "unable to get .*issuer certificate|self.signed certificate"),
        (papers.server("far.example.com"), "Hostname mismatch"),
        (papers.server(HOST, begin=-7200, end=-3600), "expired"),
    ]
    for context, message in cases:
        with pytest.raises(BadCertificateError, match=message):
            await ask(session(papers), await bench.start(replying(OK), context))


def test_an_unreadable_trust_store(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(BadCertificateError, match=f"expected root certificates .* in {path}"):
            measure(f"https://{HOST}/", Session(Stub(NOWHERE), path), ("127.0.0.1", 9))


def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so that connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError, match=rf"{HOST} \(127.0.0.1:{port}\): Connection refused"):
            measure(f"http://{HOST}/", Session(Stub(NOWHERE)), ("127.0.0.1", port))


@pytest.fixture
def full() -> Iterator[int]:
    """Yield the port of a server whose accept queue is full, so that it ignores SYNs."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_connection_without_a_response(full: int) -> None:
    with pytest.raises(ConnectError, match=r"no response within 0\.3 s"):
        measure(f"http://{HOST}/", Session(Stub(NOWHERE), timeout=0.3), ("127.0.0.1", full))


async def test_a_name_that_does_not_exist() -> None:
    def deny(wire: bytes, *_: object) -> bytes:
        reply = dnslib.DNSRecord.parse(wire).reply()
        reply.header.rcode = 3
        return bytes(reply.pack())

    listener = await serving.start(("127.0.0.1", 0), deny)
    try:
        who = Session(Stub([listener.address], timeout=1.0, attempts=1))
        with pytest.raises(NameLookupError, match=r"no\.example\.com"):
            await asyncio.to_thread(measure, "http://no.example.com/", who)
    finally:
        await listener.close()


def test_no_name_server_responds() -> None:
    with pytest.raises(NameLookupError, match=HOST):
        measure(f"http://{HOST}/", Session(Stub(NOWHERE, timeout=0.1, attempts=1)))


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://www.example.com", (True, "www.example.com", 443, "/")),
        ("http://www.example.com:8080/a?b=c", (False, "www.example.com", 8080, "/a?b=c")),
        ("https://WWW.example.com/#there", (True, "www.example.com", 443, "/")),
    ],
    ids=["bare", "port-and-query", "fragment"],
)
def test_urls(url: str, parts: tuple) -> None:
    assert split(url) == parts


@pytest.mark.parametrize(
    "url",
    ["", "www.example.com", "ftp://www.example.com/", "https://", "https://a:b/", "https://a/\r\nX: y",
     "https://a:70000/"],
)  # fmt: skip
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(BadURLError, match=r"expected a URL like https://www\.example\.com/, got"):
        split(url)


def test_every_error_names_its_phase() -> None:
    assert all(each.phase for each in WaterfallError.__subclasses__())
