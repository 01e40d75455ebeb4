"""Tests that send raw HTTP/2 frames to the edge and check its reaction against RFC 9113 and RFC 7541.

Cases are ordered by RFC section, as in the program h2spec.  A server may treat a stream error as a connection error
(RFC 9113 section 5.4.2), and answer a malformed request with status 400 (section 8.1.1).
"""

from dataclasses import dataclass

import pytest
from h2.errors import ErrorCodes

from edge import Timeouts
from edge.http2 import MAX_CONTROL, MAX_RESETS, MAX_STREAMS
from edge.proxy import Proxy
from tests.edge.conftest import Bench, plain
from tests.edge.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    block,
    frame,
    headers,
    settings,
)
from tests.peers import OK, read_request
from tests.waiting import until

PROTOCOL, FLOW, SIZE = ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.FRAME_SIZE_ERROR
CLOSED, REFUSED, COMPRESSION = ErrorCodes.STREAM_CLOSED, ErrorCodes.REFUSED_STREAM, ErrorCodes.COMPRESSION_ERROR
#: Stream window and response size in bytes; the response takes more WINDOW_UPDATE frames than an idle client may send.
WINDOW, LARGE = 2048, 2 * MAX_CONTROL * 2048
START = PREFACE + settings()
HALF = END_HEADERS  # flags of a HEADERS frame when a body follows


@dataclass(frozen=True)
class Connection:
    """The edge sends GOAWAY with one of *codes* and closes the connection."""

    codes: frozenset[ErrorCodes]


@dataclass(frozen=True)
class Stream:
    """The edge resets stream *number* with one of *codes*, or treats the error as a connection error."""

    codes: frozenset[ErrorCodes]
    number: int = 1


@dataclass(frozen=True)
class Malformed:
    """The edge answers stream 1 with *status*, or resets it with PROTOCOL_ERROR; the origin gets no request."""

    status: str = "400"


@dataclass(frozen=True)
class Served:
    """The edge answers stream *number* with 200, and the connection stays usable."""

    number: int = 1


Expected = Connection | Stream | Malformed | Served


def connection(*codes: ErrorCodes) -> Connection:
    return Connection(frozenset(codes))


def stream(*codes: ErrorCodes, number: int = 1) -> Stream:
    return Stream(frozenset(codes), number)


def without(name: str) -> list[tuple[str, str]]:
    return [field for field in GET if field[0] != name]


def get(*more: tuple[str, str]) -> bytes:
    return headers([*GET, *more])


def slow(number: int) -> bytes:
    """Return a request that the origin never answers."""
    return headers([*GET[:2], (":path", "/slow"), GET[3]], number)


PING_8 = frame(PING, 0, 0, b"whatever")
REST = (  # id, bytes sent after the preface and SETTINGS, expected reaction
    # --- 4: frames ---
    ("4.1-unknown-type", [frame(0x16, 0, 0, b"abc"), get()], Served()),
    ("4.1-unknown-flags", [frame(PING, 0xFE, 0, b"whatever"), get()], Served()),
    ("4.1-reserved-bit", [frame(PING, 0, 0x80000000, b"whatever"), get()], Served()),
    ("4.2-largest-data", [headers(POST, flags=HALF), frame(DATA, END_STREAM, 1, bytes(16_384))], Served()),
    ("4.2-data-too-large", [headers(POST, flags=HALF), frame(DATA, END_STREAM, 1, bytes(16_385))], stream(SIZE)),
    ("4.2-headers-too-large", [frame(HEADERS, END_STREAM | END_HEADERS, 1, bytes(16_385))], connection(SIZE)),
    ("4.2-declared-too-large", [frame(HEADERS, END_STREAM | END_HEADERS, 1, length=0xFFFFFF)], connection(SIZE)),
    ("4.3-other-frame-within", [headers(flags=END_STREAM), frame(PRIORITY, 0, 1, bytes(5))], connection(PROTOCOL)),
    ("4.3-ping-within", [headers(flags=END_STREAM), PING_8], connection(PROTOCOL)),
    ("4.3-other-stream-within", [headers(flags=END_STREAM), get(), headers(stream=3)], connection(PROTOCOL)),
    ("5.5-unknown-type-within", [headers(flags=END_STREAM), frame(0x16, 0, 0, b"abc")], connection(PROTOCOL)),
    # --- 5.1: stream states ---
    ("5.1-idle-data", [frame(DATA, END_STREAM, 1, b"x")], connection(PROTOCOL)),
    ("5.1-idle-rst-stream", [frame(RST_STREAM, 0, 1, bytes(4))], connection(PROTOCOL)),
    ("5.1-idle-window-update", [frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")], connection(PROTOCOL)),
    ("5.1-idle-continuation", [frame(CONTINUATION, END_HEADERS, 1, block(GET))], connection(PROTOCOL)),
    ("5.1-idle-priority", [frame(PRIORITY, 0, 3, b"\0\0\0\1\1"), get()], Served()),
    ("5.1-half-closed-data", [slow(1), frame(DATA, END_STREAM, 1, b"x")], stream(CLOSED)),
    ("5.1-half-closed-headers", [slow(1), get()], stream(CLOSED)),
    ("5.1-half-closed-continuation", [slow(1), frame(CONTINUATION, END_HEADERS, 1, block(GET))],
     connection(CLOSED, PROTOCOL)),
    ("5.1-reset-data", [headers(POST, flags=HALF), frame(RST_STREAM, 0, 1, bytes(4)), frame(DATA, 1, 1, b"x")],
     stream(CLOSED)),
    ("5.1-reset-headers", [headers(POST, flags=HALF), frame(RST_STREAM, 0, 1, bytes(4)), get()], stream(CLOSED)),
    ("5.1-reset-window-update",
     [headers(POST, flags=HALF), frame(RST_STREAM, 0, 1, bytes(4)), frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
      headers(stream=3)], Served(3)),
    ("5.1.1-even", [headers(stream=2)], connection(PROTOCOL)),
    ("5.1.1-lower", [headers(stream=5), headers(stream=3)], connection(PROTOCOL)),
    ("5.1.1-zero", [headers(stream=0)], connection(PROTOCOL)),
    ("5.1.1-highest", [headers(stream=0x7FFFFFFF)], Served(0x7FFFFFFF)),
    ("5.1.2-too-many",
     [slow(2 * number + 1) for number in range(MAX_STREAMS + 1)],
     stream(REFUSED, PROTOCOL, number=257)),
    ("5.3-depends-on-itself",
     [frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED, 1, b"\0\0\0\1\0" + block(GET))], stream(PROTOCOL)),
    ("5.3-with-priority",
     [frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED, 1, b"\0\0\0\0\7" + block(GET))], Served()),
    # --- 6: frame types ---
    ("6.1-stream-0", [frame(DATA, END_STREAM, 0, b"x")], connection(PROTOCOL)),
    ("6.1-padding", [headers(POST, flags=HALF), frame(DATA, END_STREAM | PADDED, 1, b"\3x" + bytes(3))], Served()),
    ("6.1-padding-too-long", [headers(POST, flags=HALF), frame(DATA, END_STREAM | PADDED, 1, b"\x09x")],
     connection(PROTOCOL)),
    ("6.2-padding", [frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\3" + block(GET) + bytes(3))], Served()),
    ("6.2-padding-too-long", [frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\xff" + b"\x82")],
     connection(PROTOCOL)),
    ("6.3-stream-0", [frame(PRIORITY, 0, 0, bytes(5))], connection(PROTOCOL)),
    ("6.3-length", [headers(POST, flags=HALF), frame(PRIORITY, 0, 1, bytes(4))], stream(SIZE)),
    ("6.4-stream-0", [frame(RST_STREAM, 0, 0, bytes(4))], connection(PROTOCOL)),
    ("6.4-length", [headers(POST, flags=HALF), frame(RST_STREAM, 0, 1, bytes(3))], connection(SIZE)),
    ("6.5-ack-with-payload", [frame(SETTINGS, ACK, 0, bytes(6))], connection(SIZE)),
    ("6.5-stream-1", [frame(SETTINGS, 0, 1, bytes(6))], connection(PROTOCOL)),
    ("6.5-length", [frame(SETTINGS, 0, 0, bytes(5))], connection(SIZE)),
    ("6.5.2-push", [settings((2, 2))], connection(PROTOCOL)),
    ("6.5.2-window", [settings((4, 0x80000000))], connection(FLOW)),
    ("6.5.2-frame-too-small", [settings((5, 16_383))], connection(PROTOCOL)),
    ("6.5.2-frame-too-large", [settings((5, 1 << 24))], connection(PROTOCOL)),
    ("6.5.2-unknown", [settings((0xFF, 1)), get()], Served()),
    ("6.5.3-last-value-counts", [settings((4, 0), (4, 100)), get()], Served()),
    ("6.6-push-promise", [headers(POST, flags=HALF), frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(GET))],
     connection(PROTOCOL)),
    ("6.7-ack-is-ignored", [frame(PING, ACK, 0, b"whatever"), get()], Served()),
    ("6.7-stream-1", [frame(PING, 0, 1, b"whatever")], connection(PROTOCOL)),
    ("6.7-length", [frame(PING, 0, 0, b"short")], connection(SIZE)),
    ("6.8-stream-1", [frame(GOAWAY, 0, 1, bytes(8))], connection(PROTOCOL)),
    ("6.8-length", [frame(GOAWAY, 0, 0, bytes(4))], connection(SIZE)),
    ("6.9-zero", [frame(WINDOW_UPDATE, 0, 0, bytes(4))], connection(PROTOCOL)),
    ("6.9-zero-on-a-stream", [headers(POST, flags=HALF), frame(WINDOW_UPDATE, 0, 1, bytes(4))], stream(PROTOCOL)),
    ("6.9-length", [frame(WINDOW_UPDATE, 0, 0, bytes(3))], connection(SIZE)),
    ("6.9.1-window-overflow", [frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")], connection(FLOW)),
    ("6.9.1-window-overflow-on-a-stream",
     [headers(POST, flags=HALF), frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")], stream(FLOW)),
    ("6.9.1-more-than-the-window",
     [headers([*POST[:2], (":path", "/slow"), POST[3]], flags=HALF), *[frame(DATA, 0, 1, bytes(16_384))] * 66],
     stream(FLOW)),
    ("6.9.2-overflow-by-settings",
     [headers(POST, flags=HALF), frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\0\0"), settings((4, 0x7FFFFFFF))],
     connection(FLOW)),
    ("6.10-in-three-parts",
     [headers(GET[:1], flags=END_STREAM), frame(CONTINUATION, 0, 1, block(GET[1:2])),
      frame(CONTINUATION, END_HEADERS, 1, block(GET[2:]))], Served()),
    ("6.10-after-the-end", [get(), frame(CONTINUATION, END_HEADERS, 1, block(GET))], connection(PROTOCOL, CLOSED)),
    ("6.10-stream-0", [headers(flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 0)], connection(PROTOCOL)),
    ("6.10-data-within", [headers(flags=0), frame(DATA, END_STREAM, 1, b"x")], connection(PROTOCOL)),
    ("7-unknown-error-code", [headers(POST, flags=HALF), frame(RST_STREAM, 0, 1, b"\0\0\0\xff"), headers(stream=3)],
     Served(3)),
    # --- 8: requests ---
    ("8.1-second-head", [headers(POST, flags=HALF), headers([("x", "1")], flags=END_HEADERS)], stream(PROTOCOL)),
    ("8.1-trailers", [headers(POST, flags=HALF), frame(DATA, 0, 1, b"x"), headers([("x", "1")])], Served()),
    ("8.1-pseudo-in-trailers", [headers(POST, flags=HALF), frame(DATA, 0, 1, b"x"), headers([(":path", "/")])],
     stream(PROTOCOL)),
    ("8.1.1-length-too-large",
     [headers([*POST, ("content-length", "2")], flags=HALF), frame(DATA, END_STREAM, 1, b"x")], stream(PROTOCOL)),
    ("8.1.1-length-too-small",
     [headers([*POST, ("content-length", "1")], flags=HALF), frame(DATA, END_STREAM, 1, b"xx")], stream(PROTOCOL)),
    ("8.1.1-length-without-body", [headers([*POST, ("content-length", "1")])], Malformed()),
    ("8.1.1-length-of-no-body", [headers([*POST, ("content-length", "0")])], Served()),
    ("8.1.1-two-lengths",
     [headers([*POST, ("content-length", "1"), ("content-length", "2")], flags=HALF),
      frame(DATA, END_STREAM, 1, b"x")], Malformed()),
    ("8.1.1-no-length", [headers([*POST, ("content-length", "+1")], flags=HALF), frame(DATA, END_STREAM, 1, b"x")],
     Malformed()),
    ("8.2.1-upper-case", [get(("X-Upper", "1"))], Malformed()),
    ("8.2.1-empty-name", [get(("", "1"))], Malformed()),
    ("8.2.1-space-in-name", [get(("x y", "1"))], Malformed()),
    ("8.2.1-colon-in-name", [get(("x:y", "1"))], Malformed()),
    ("8.2.1-bytes-above-ascii-in-name", [get(("\xe4", "1"))], Malformed()),
    ("8.2.1-cr", [get(("x", "a\rb"))], Malformed()),
    ("8.2.1-lf", [get(("x", "a\nb"))], Malformed()),
    ("8.2.1-crlf", [get(("x", "a\r\nevil: 1"))], Malformed()),
    ("8.2.1-nul", [get(("x", "a\0b"))], Malformed()),
    ("8.2.1-leading-space", [get(("x", " a"))], Malformed()),
    ("8.2.1-trailing-tab", [get(("x", "a\t"))], Malformed()),
    ("8.2.2-connection", [get(("connection", "keep-alive"))], Malformed()),
    ("8.2.2-keep-alive", [get(("keep-alive", "1"))], Malformed()),
    ("8.2.2-proxy-connection", [get(("proxy-connection", "keep-alive"))], Malformed()),
    ("8.2.2-transfer-encoding", [get(("transfer-encoding", "chunked"))], Malformed()),
    ("8.2.2-upgrade", [get(("upgrade", "h2c"))], Malformed()),
    ("8.2.2-te", [get(("te", "gzip"))], Malformed()),
    ("8.2.2-te-trailers", [get(("te", "trailers"))], Served()),
    ("8.3-unknown-pseudo", [get((":x", "1"))], Malformed()),
    ("8.3-of-a-response", [get((":status", "200"))], Malformed()),
    ("8.3-after-a-field", [headers([*GET[:3], ("x", "1"), GET[3]])], Malformed()),
    ("8.3-twice", [headers([*GET, (":path", "/")])], Malformed()),
    ("8.3.1-no-method", [headers(without(":method"))], Malformed()),
    ("8.3.1-no-scheme", [headers(without(":scheme"))], Malformed()),
    ("8.3.1-no-path", [headers(without(":path"))], Malformed()),
    ("8.3.1-empty-path", [headers([*GET[:2], (":path", ""), GET[3]])], Malformed()),
    ("8.3.1-relative-path", [headers([*GET[:2], (":path", "a"), GET[3]])], Malformed()),
    ("8.3.1-space-in-path", [headers([*GET[:2], (":path", "/ HTTP/1.1"), GET[3]])], Malformed()),
    ("8.3.1-space-in-method", [headers([(":method", "GET /evil"), *GET[1:]])], Malformed()),
    ("8.3.1-no-authority", [headers(without(":authority"))], Malformed()),
    ("8.3.1-host-instead", [headers([*GET[:3], ("host", "www.example.com")])], Served()),
    ("8.3.1-host-differs", [get(("host", "evil.example"))], Malformed()),
    ("8.3.1-user-name", [headers([*GET[:3], (":authority", "user@www.example.com")])], Malformed()),
    ("8.5-connect", [headers([(":method", "CONNECT"), GET[3]])], Malformed("405")),
    # --- RFC 7541: field compression ---
    ("hpack-2.3.3-index-beyond", [frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\x40")], connection(COMPRESSION)),
    ("hpack-6.1-index-0", [frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x80")], connection(COMPRESSION)),
    ("hpack-4.2-size-at-the-end", [frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET) + b"\x3f\x01")],
     connection(COMPRESSION)),
    ("hpack-6.3-size-too-large", [frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\xe2\x1f" + block(GET))],
     connection(COMPRESSION)),
    ("hpack-6.3-smaller-size", [frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x20" + block(GET))], Served()),
    ("hpack-5.1-endless-integer", [frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff" + b"\xff" * 40 + b"\x01")],
     connection(COMPRESSION)),
    ("hpack-5.2-cut-short", [frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET)[:-3])], connection(COMPRESSION)),
    ("hpack-5.2-padding-too-long", [frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET) + b"\0\x01x\x82\x07\xff")],
     connection(COMPRESSION)),
    ("hpack-5.2-padding-of-zeros", [frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET) + b"\0\x01x\x81\x00")],
     connection(COMPRESSION)),
    ("hpack-5.2-end-of-string",
     [frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET) + b"\0\x01x\x84\xff\xff\xff\xff")],
     connection(COMPRESSION)),
)  # fmt: skip


async def origin(reader, writer) -> None:
    while True:
        line, _, _ = await read_request(reader)
        if "/slow" in line:
            await reader.read()
            return
        large = line.startswith("GET /large ")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE) if large else OK)


HASTY = Timeouts(linger=0.02, drain=0.02)


async def connect(bench: Bench, timeouts: Timeouts = HASTY) -> tuple[Proxy, Wire]:
    """Start an edge in front of `origin`; return the edge and a connection on which nothing has been sent yet."""
    proxy, port = await bench.edge(plain(await bench.start(origin)), tls=True, alpn=("h2",), timeouts=timeouts)
    return proxy, await Wire.connect(bench, port)


@pytest.mark.parametrize(("sent", "expected"), [pytest.param(*case[1:], id=case[0]) for case in REST])
async def test_frames_and_what_answers_them(bench: Bench, sent: list[bytes], expected: Expected) -> None:
    _, wire = await connect(bench)
    wire.send(START, *sent)
    match expected:
        case Connection(codes):
            await wire.read(lambda: False)
            assert wire.goaway in codes
        case Stream(codes, number):
            await wire.read(lambda: number in wire.resets or wire.goaway is not None)
            assert wire.goaway in codes or wire.resets.get(number) in codes
            assert wire.goaway is not None or await wire.alive()
        case Malformed(status):
            await wire.read(lambda: 1 in wire.resets or 1 in wire.statuses or wire.goaway is not None)
            assert PROTOCOL in {wire.goaway, wire.resets.get(1)} or wire.statuses[1] == status
            assert wire.statuses.get(1) != "200"
        case Served(number):
            await wire.read(lambda: wire.bodies.get(number) == len(b"ok"))
            assert wire.statuses[number] == "200"
            assert await wire.alive()
    await wire.close()


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="http/1.1"),
        pytest.param(PREFACE[:-1] + b"x" + settings(), id="corrupt"),
        pytest.param(PREFACE + PING_8, id="no-settings"),
    ],
)
async def test_a_connection_begins_with_preface_and_settings(bench: Bench, start: bytes) -> None:
    _, wire = await connect(bench)
    wire.send(start)
    await wire.read(lambda: False)
    assert wire.goaway in {PROTOCOL, None}, "GOAWAY may be omitted"
    assert not wire.statuses
    await wire.close()


async def test_settings_and_pings_are_acknowledged(bench: Bench) -> None:
    _, wire = await connect(bench)
    wire.send(START, settings((3, 5)), PING_8, frame(PING, 0, 0, bytes(8)))
    await wire.read(lambda: len(wire.pongs) == 2)
    assert wire.settings_acknowledged == 2
    assert wire.pongs == [b"whatever", bytes(8)]
    await wire.close()


ODD = [2 * number + 1 for number in range(2 * MAX_RESETS)]
FLOODS = {
    "ping": [PING_8] * (MAX_CONTROL + 1),
    "settings": [settings((4, 100))] * (MAX_CONTROL + 1),
    "empty-settings": [settings()] * (MAX_CONTROL + 1),
    "window-update": [frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")] * (MAX_CONTROL + 1),
    "priority": [frame(PRIORITY, 0, 3, b"\0\0\0\0\1")] * (MAX_CONTROL + 1),
    "empty-data": [headers(POST, flags=HALF), *[frame(DATA, 0, 1)] * (MAX_CONTROL + 12)],
    "rapid-reset": [part for number in ODD for part in (slow(number), frame(RST_STREAM, 0, number, bytes(4)))],
    # The client makes the edge reset the streams (CVE-2025-8671).
    "made-you-reset": [
        part for number in ODD for part in (headers(POST, number, HALF), frame(RST_STREAM, 0, number, bytes(4)),
                                            frame(DATA, 0, number, b"x"))
    ],
    "continuation": [headers(flags=0), *[frame(CONTINUATION, 0, 1, block([("x", "y" * 100)]))] * 1000],
    "empty-continuation": [headers(flags=0), *[frame(CONTINUATION, 0, 1)] * 1000],
    # One field of 4 kB in the dynamic table and 4,000 references to it: 16 MB of decoded fields from one frame.
    "field-bomb": [
        frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET) + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000
              + b"\xbe" * 4000)
    ],
    "streams": [slow(number) for number in ODD[: MAX_STREAMS + 1]],
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_connection_and_no_other(bench: Bench, flood: str) -> None:
    proxy, wire = await connect(bench)
    port = wire.port
    other = await Wire.connect(bench, port)
    other.send(START)
    wire.send(START, *FLOODS[flood])
    await wire.read(lambda: False)
    assert wire.goaway in {ErrorCodes.ENHANCE_YOUR_CALM, PROTOCOL, REFUSED}
    assert len(wire.pongs) <= MAX_CONTROL + 1
    assert await other.alive()
    other.send(headers())
    await other.read(lambda: 1 in other.bodies)
    assert other.statuses == {1: "200"}
    await wire.close()
    await other.close()
    await until(lambda: not proxy._clients and not proxy._exchanges)


async def test_a_client_with_a_small_window_gets_a_large_response(bench: Bench) -> None:
    _, wire = await connect(bench)
    wire.acknowledge = True
    wire.send(PREFACE, settings((4, WINDOW)), headers([*GET[:2], (":path", "/large"), GET[3]]))
    await wire.read(lambda: wire.bodies.get(1) == LARGE)
    assert (wire.goaway, wire.bodies[1]) == (None, LARGE)
    await wire.close()


async def test_a_window_of_one_byte_is_respected(bench: Bench) -> None:
    _, wire = await connect(bench)
    wire.send(PREFACE, settings((4, 1)), headers())
    await wire.read(lambda: wire.bodies.get(1))
    assert wire.bodies[1] == 1
    wire.send(settings((4, 0)), frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"))  # the window becomes -1, then 0
    assert await wire.alive()
    assert wire.bodies[1] == 1
    wire.send(settings((4, 1)))
    await wire.read(lambda: wire.bodies[1] == len(b"ok"))
    await wire.close()


@pytest.mark.parametrize("limits", [Timeouts(body=0.1), Timeouts(rate_window=0.1)], ids=["silence", "rate"])
async def test_a_body_that_trickles_is_a_408(bench: Bench, limits: Timeouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.http2.LOOK", 0.02)
    _, wire = await connect(bench, limits)
    wire.send(START, headers(POST, flags=HALF), frame(DATA, 0, 1, b"x"), frame(DATA, 0, 1))
    await wire.read(lambda: 1 in wire.statuses)
    assert wire.statuses == {1: "408"}
    assert await wire.alive()
    await wire.close()
