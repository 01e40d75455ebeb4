"""Tests for requests that the edge rejects without contacting an origin."""

import json

import pytest

from edge import Timeouts
from tests.edge.conftest import Bench, parts, plain, talk
from tests.peers import OK, read_request, replying


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="length-and-coding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                     b"Content-Length: 4\r\n\r\nabcd", 400, id="two-lengths"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400, id="signed-length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                     501, id="other-coding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
                     501, id="almost-chunked"),
        pytest.param(b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     400, id="chunked-in-1.0"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, id="two-hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400, id="odd-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX : 1\r\n\r\n", 400, id="space-before-colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400, id="folded-field"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, id="nul"),
        pytest.param(b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="odd-target"),
        pytest.param(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405, id="connect"),
        pytest.param(b"GET / HTTP/2.7\r\nHost: x\r\n\r\n", 400, id="version"),
        pytest.param(b"nonsense\r\n\r\n", 400, id="nonsense"),
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="long-target"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431, id="many-fields"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40_000 + b"\r\n\r\n", 431, id="large-fields"),
    ],
)  # fmt: skip
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    bench: Bench, request_: bytes, status: int
) -> None:
    seen = []

    async def script(reader, writer) -> None:
        seen.append(await read_request(reader))

    _, port = await bench.edge(plain(await bench.start(script)))
    got, fields, body = parts(await talk(port, request_))
    assert got == status, body
    assert fields["connection"] == "close"
    assert json.loads(body)["reason"]
    assert seen == []


async def test_slow_heads_are_cut_off(bench: Bench) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=Timeouts(head=0.05))
    assert parts(await talk(port, b"GET / HTT"))[0] == 408
