"""Tests for HTTP/2 clients: forwarding, protection against floods, and fields that HTTP/1.1 cannot represent."""

import asyncio
import contextlib
import json
import ssl
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from edge import Limits, Timeouts
from edge.errors import EdgeError
from edge.heads import request_head
from edge.http2 import MAX_RESETS, MAX_STREAMS
from edge.http2_input import as_http_1
from tests.edge.conftest import Bench, plain
from tests.peers import OK, read_request, replying
from tests.waiting import until

GET = [(":method", "GET"), (":scheme", "https"), (":authority", "www.example.com"), (":path", "/")]


class Http2Peer:
    """HTTP/2 client based on h2 that gives tests control over each frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2: Any = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: defaultdict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.interim: list[str] = []
        self.terminated: int | None = None
        self.acknowledge = True
        self.h2.initiate_connection()
        self.flush()

    @classmethod
    async def connect(cls, bench: Bench, port: int, name: str | None = None) -> "Http2Peer":
        context = bench.papers.client(name)
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="www.example.com"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        return cls(reader, writer)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(self, fields: list[tuple[str, str]] | None = None, *, end: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, fields or GET, end_stream=end)
        self.flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(number, data, end_stream=end)
        self.flush()

    async def read(self, until: Any, timeout: float = 5.0) -> None:
        """Read frames until *until* returns true or the edge closes the connection."""
        async with asyncio.timeout(timeout):
            while not until():
                data = await self.reader.read(65536)
                if not data:
                    return
                for event in self.h2.receive_data(data):
                    self.act(event)
                self.flush()

    def act(self, event: Any) -> None:
        fields: Any = getattr(event, "headers", None)
        match event:
            case ResponseReceived():
                self.heads[event.stream_id] = dict(fields)
            case InformationalResponseReceived():
                self.interim.append(dict(fields)[":status"])
            case DataReceived():
                self.bodies[event.stream_id] += event.data
                if self.acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.ended.add(event.stream_id)
            case StreamReset():
                self.reset[event.stream_id] = event.error_code
            case ConnectionTerminated():
                self.terminated = event.error_code

    async def answer(self, number: int) -> tuple[str, bytes]:
        await self.read(lambda: number in self.ended or number in self.reset)
        return self.heads[number][":status"], self.bodies[number]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def behind(bench: Bench, script, **more):
    """Start an edge with HTTP/2 in front of an origin that runs *script*; return the edge and a connected client."""
    proxy, port = await bench.edge(plain(await bench.start(script)), tls=True, alpn=("h2", "http/1.1"), **more)
    return proxy, await Http2Peer.connect(bench, port)


async def test_fields_whose_values_do_not_repeat_stay_out_of_the_hpack_table(bench: Bench) -> None:
    _, peer = await behind(bench, replying(b"HTTP/1.1 200 OK\r\nX-Kept: a\r\nContent-Length: 2\r\n\r\nok"))
    number = peer.request()
    assert await peer.answer(number) == ("200", b"ok")
    assert "server-timing" in peer.heads[number]
    names = {name for name, _ in peer.h2.decoder.header_table.dynamic_entries}
    assert b"x-kept" in names
    assert b"server-timing" not in names
    peer.writer.close()


async def test_requests_side_by_side_are_answered_each_on_its_stream(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        while True:
            line, fields, _ = await read_request(reader)
            path = line.split()[1]
            assert fields["host"] == "www.example.com"
            await asyncio.sleep(0.05 if path == "/slow" else 0)  # later requests overtake the one for /slow
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path.encode()))

    proxy, peer = await behind(bench, script)
    numbers = {path: peer.request([*GET[:3], (":path", path)]) for path in ("/slow", "/1", "/2", "/3")}
    for path, number in numbers.items():
        assert await peer.answer(number) == ("200", path.encode())
        assert "server-timing" in peer.heads[number]
        assert peer.heads[number]["via"] == "1.1 firstbyte-edge"
    await peer.close()
    await until(lambda: not proxy._clients and not proxy._exchanges)
    assert 'listener="https",status="200"} 4' in proxy.telemetry.metrics.render()


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked-behind"])
async def test_bodies_pass_both_ways_within_the_windows(bench: Bench, *, length: bool) -> None:
    async def echo(reader, writer) -> None:
        while True:
            _, _, body = await read_request(reader)
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            )

    _, peer = await behind(bench, echo)
    data = bytes(number % 251 for number in range(1_000_000))
    fields = [(":method", "POST"), *GET[1:], *([("content-length", str(len(data)))] if length else [])]
    number = peer.request(fields, end=False)
    sent = 0
    while sent < len(data):
        await peer.read(lambda: peer.h2.local_flow_control_window(number) > 0)
        room = min(peer.h2.local_flow_control_window(number), peer.h2.max_outbound_frame_size, len(data) - sent)
        peer.send(number, data[sent : sent + room], end=sent + room == len(data))
        sent += room
    assert await peer.answer(number) == ("200", data)
    await peer.close()


async def test_a_client_that_takes_nothing_holds_the_origin_back(bench: Bench) -> None:
    sent = 0

    async def flood(reader, writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(bytes(100_000))
            sent += 100_000
            await writer.drain()

    proxy, peer = await behind(bench, flood, timeouts=Timeouts(send=0.2))
    peer.acknowledge = False
    number = peer.request()
    await peer.read(lambda: number in peer.reset)
    assert sent < 25_000_000
    await peer.close()
    await until(lambda: not proxy._exchanges)
    assert 'status="truncated"} 1' in proxy.telemetry.metrics.render()


@pytest.mark.parametrize(
    ("reply", "fields", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", GET, "204", b"", id="204"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                     [(":method", "HEAD"), *GET[1:]], "200", b"", id="head"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, GET, "200", b"ok", id="interim"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
                     GET, "200", b"", id="empty"),
    ],
)  # fmt: skip
async def test_messages_of_each_kind(bench: Bench, reply: bytes, fields, status: str, body: bytes) -> None:
    _, peer = await behind(bench, replying(reply))
    number = peer.request(fields)
    assert await peer.answer(number) == (status, body)
    assert not {"connection", "x-hop", "transfer-encoding"} & set(peer.heads[number])
    assert peer.interim == (["103"] if b"103" in reply else [])
    await peer.close()


async def test_errors_of_the_edge_are_answered_and_the_connection_goes_on(bench: Bench) -> None:
    proxy, peer = await behind(bench, replying(OK))
    proxy.reconfigure(replace(proxy.settings, routes=(replace(proxy.settings.routes[0], prefix="/a", max_body=10),)))
    status, body = await peer.answer(peer.request())
    assert (status, json.loads(body)["error"]) == ("404", "Not Found")
    number = peer.request([(":method", "POST"), *GET[1:3], (":path", "/a")], end=False)
    peer.send(number, bytes(20))
    assert (await peer.answer(number))[0] == "413"
    assert await peer.answer(peer.request([*GET[:3], (":path", "/a")])) == ("200", b"ok")
    await peer.close()


async def test_an_origin_that_fails_is_a_502_and_a_cut_response_a_reset(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        line, _, _ = await read_request(reader)
        if "/cut" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    _, peer = await behind(bench, script)
    assert (await peer.answer(peer.request()))[0] == "502"
    number = peer.request([*GET[:3], (":path", "/cut")])
    await peer.answer(number)
    assert peer.reset[number] == ErrorCodes.INTERNAL_ERROR
    await peer.close()


async def test_rapid_resets_end_the_connection(bench: Bench) -> None:
    asked = 0

    async def slow(reader, writer) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1
        await reader.read()

    proxy, peer = await behind(bench, slow, limits=Limits(per_target=4))
    for _ in range(MAX_RESETS + 50):
        number = peer.request()
        peer.h2.reset_stream(number, ErrorCodes.CANCEL)
        peer.flush()
    await peer.read(lambda: peer.terminated is not None)
    assert peer.terminated == ErrorCodes.ENHANCE_YOUR_CALM
    await peer.close()
    await until(lambda: not proxy._clients and not proxy._exchanges)
    assert asked <= 4 + MAX_RESETS


async def test_a_flood_of_pings_ends_the_connection(bench: Bench) -> None:
    proxy, peer = await behind(bench, replying(OK))
    for number in range(3000):
        peer.h2.ping(number.to_bytes(8, "big"))
    peer.flush()
    await peer.read(lambda: peer.terminated is not None)
    assert peer.terminated == ErrorCodes.ENHANCE_YOUR_CALM
    await peer.close()
    await until(lambda: not proxy._clients)


async def test_more_streams_than_allowed_are_an_error_of_the_client(bench: Bench) -> None:
    async def silent(reader, writer) -> None:
        await read_request(reader)
        await reader.read()

    proxy, peer = await behind(bench, silent)
    await peer.read(lambda: peer.h2.remote_settings.max_concurrent_streams == MAX_STREAMS)
    peer.h2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
    peer.h2.remote_settings.acknowledge()
    for _ in range(MAX_STREAMS + 1):
        peer.request()
    await peer.read(lambda: peer.terminated is not None)
    assert peer.terminated is not None
    await peer.close()
    await until(lambda: not proxy._clients and not proxy._exchanges)


async def test_nonsense_after_the_preface_is_answered_with_goaway(bench: Bench) -> None:
    proxy, peer = await behind(bench, replying(OK))
    peer.writer.write(b"\xff" * 100)
    await peer.read(lambda: peer.terminated is not None)
    assert peer.terminated in {ErrorCodes.FRAME_SIZE_ERROR, ErrorCodes.PROTOCOL_ERROR}
    await peer.close()
    await until(lambda: not proxy._clients)


async def test_stopping_answers_what_is_under_way(bench: Bench) -> None:
    asked = asyncio.Event()

    async def slow(reader, writer) -> None:
        await read_request(reader)
        asked.set()
        await asyncio.sleep(0.05)  # the edge begins to stop during this time
        writer.write(OK)

    proxy, peer = await behind(bench, slow, timeouts=Timeouts(drain=5))
    number = peer.request()
    await asked.wait()
    stopping = asyncio.create_task(proxy.close())
    received = await asyncio.wait_for(peer.reader.read(), 5)  # bypass h2, which ignores input after GOAWAY
    frames = []
    while received:
        frame, length = Frame.parse_frame_header(memoryview(received[:9]))
        frame.parse_body(memoryview(received[9 : 9 + length]))
        frames.append(frame)
        received = received[9 + length :]
    of_ours = [type(frame) for frame in frames if frame.stream_id == number]
    assert GoAwayFrame in map(type, frames)
    assert of_ours[0] is HeadersFrame
    assert b"".join(frame.data for frame in frames if isinstance(frame, DataFrame)) == b"ok"
    await peer.close()
    await stopping


async def test_idle_connections_are_closed_with_goaway(bench: Bench) -> None:
    proxy, peer = await behind(bench, replying(OK), timeouts=Timeouts(idle=0.05))
    await peer.answer(peer.request())
    await peer.read(lambda: peer.terminated is not None)
    assert peer.terminated == ErrorCodes.NO_ERROR
    await peer.close()
    await until(lambda: not proxy._clients)


async def test_expect_is_answered_and_cookies_are_joined(bench: Bench) -> None:
    seen: list[dict[str, str]] = []

    async def script(reader, writer) -> None:
        seen.append((await read_request(reader))[1])
        writer.write(OK)
        await reader.read()

    _, peer = await behind(bench, script)
    fields = [(":method", "POST"), *GET[1:], ("expect", "100-continue"), ("cookie", "a=1"), ("cookie", "b=2")]
    number = peer.request(fields, end=False)
    await peer.read(lambda: bool(peer.interim))
    assert peer.interim == ["100"]
    peer.send(number, b"x", end=True)
    assert (await peer.answer(number))[0] == "200"
    assert seen[0]["cookie"] == "a=1; b=2"
    assert "expect" not in seen[0]
    await peer.close()


NAMES = st.sampled_from(
    [
        b":path",
        b":method",
        b":authority",
        b"host",
        b"x",
        b"cookie",
        b"te",
        b"transfer-encoding",
        b"a:b",
        b"content-length",
    ]
)
VALUES = st.sampled_from(
    [b"/", b"GET", b"x", b"a\r\nX-Evil: 1", b"/ HTTP/1.1\r\n\r\nGET /evil", b"a\nb", b"a\0", b"3", b"chunked",
     b"GET /a HTTP/1.1"]
) | st.binary(max_size=8)  # fmt: skip


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_no_fields_make_two_requests_of_one(fields: list[tuple[bytes, bytes]], ended: bool) -> None:
    try:
        head = as_http_1(fields, ended=ended)
        read = request_head(head)
    except EdgeError:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert b"\nX-Evil" not in head
    assert read.forward.count(b"HTTP/1.1\r\n") == 1
    assert not (ended and read.framing.chunked and not any(name == b"transfer-encoding" for name, _ in fields))


async def test_without_the_choice_of_h2_the_connection_speaks_http_1(bench: Bench) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), tls=True, alpn=("h2", "http/1.1"))
    context: ssl.SSLContext = bench.papers.client()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com")
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
