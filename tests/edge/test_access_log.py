"""Tests for the access log: contents of its lines for requests that the edge answers without an origin."""

from dataclasses import replace
from typing import Any

import pytest

from edge import Timeouts
from edge.proxy import Proxy
from tests.edge.conftest import GET, Bench, plain, talk
from tests.edge.test_http2 import GET as GET_2
from tests.edge.test_http2 import Http2Peer
from tests.peers import OK, replying
from tests.waiting import until

HOST = b"Host: www.example.com\r\nX-Request-ID: r1\r\nConnection: close\r\n"
KNOWN = {"host": "www.example.com", "request_id": "r1", "upstream": "", "client": "127.0.0.1"}


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record)["fields"] for record in caplog.records if record.name == "edge.access"]


def log_all(proxy: Proxy, **changes: Any) -> None:
    routes = tuple(replace(route, prefix="/a", max_body=9) for route in proxy.settings.routes)
    proxy.reconfigure(replace(proxy.settings, routes=routes, log_sample=1.0, **changes))


@pytest.mark.parametrize(
    ("request_", "status", "method", "target", "reason"),
    [
        pytest.param(b"GET /a?q HTTP/1.1\r\nX : 1\r\n" + HOST + b"\r\n", 400, "GET", "/a?q", "NAME: VALUE", id="400"),
        pytest.param(b"GET /\r\nHo\nst: x" + HOST, 400, "GET", "/", "HTTP request", id="400-early"),
        pytest.param(b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n", 404, "GET", "/none", "no route", id="404"),
        pytest.param(b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405, "CONNECT", "x:443", "tunnel", id="405"),
        pytest.param(b"PUT /a HTTP/1.1\r\n" + HOST, 408, "PUT", "/a", "no complete request head", id="408"),
        pytest.param(b"PUT /a HTTP/1.1\r\nContent-Length: 10\r\n" + HOST + b"\r\n0123456789",
                     413, "PUT", "/a", "at most 9 bytes", id="413-declared"),
        pytest.param(b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"\r\na\r\n0123456789\r\n0\r\n\r\n",
                     413, "PUT", "/a", "at most 9 bytes", id="413-received"),
        pytest.param(b"PUT /a HTTP/1.1\r\nExpect: x\r\n" + HOST + b"\r\n", 417, "PUT", "/a", "100-continue", id="417"),
        pytest.param(b"GET /a HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 101 + b"\r\n",
                     431, "GET", "/a", "100 fields", id="431"),
        pytest.param(b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n", 505, "GET", "/a", "got HTTP/2.0", id="505"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 200, "OPTIONS", "*", "", id="options"),
        pytest.param(b"TRACE /a HTTP/1.1\r\nMax-Forwards: 0\r\n" + HOST + b"\r\n", 200, "TRACE", "/a", "", id="trace"),
    ],
)  # fmt: skip
async def test_answers_of_the_edge_itself_are_logged_with_what_is_known_of_the_request(
    bench: Bench, logged: pytest.LogCaptureFixture, request_: bytes, status: int, method: str, target: str, reason: str
) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=Timeouts(head=0.1, linger=0.1))
    log_all(proxy)
    await talk(port, request_)
    (line,) = lines(logged)
    known = KNOWN if status != 400 or reason != "HTTP request" else {"client": "127.0.0.1"}
    assert {**line, **known, "status": status, "method": method, "target": target} == line
    assert reason in line["reason"]
    assert bool(reason) is bool(line["reason"])
    assert 90 * (status == 408) <= line["took_ms"] < 5000


async def test_redirects_are_logged_with_their_target(bench: Bench, logged: pytest.LogCaptureFixture) -> None:
    proxy, port = await bench.edge(plain(1))
    log_all(proxy, redirect=True)
    await talk(port, GET)
    (line,) = lines(logged)
    assert {**line, "status": 308, "method": "GET", "target": "/", "host": "www.example.com"} == line


async def test_bytes_that_are_no_request_are_logged_without_one(bench: Bench, logged: pytest.LogCaptureFixture) -> None:
    proxy, port = await bench.edge(plain(1))
    log_all(proxy)
    await talk(port, b"\x16\x03\x01\x02\0 \x01")
    (line,) = lines(logged)
    assert (line["status"], line["method"], line["target"], line["host"]) == (400, "", "", "")
    assert "expected an HTTP request" in line["reason"]


async def test_the_reason_of_a_bad_gateway_is_logged(bench: Bench, logged: pytest.LogCaptureFixture) -> None:
    proxy, port = await bench.edge(plain(1))
    log_all(proxy)
    await talk(port, GET.replace(b"/ ", b"/a "))
    (line,) = lines(logged)
    assert (line["status"], line["reason"]) == (502, "connection: Connection refused")


@pytest.mark.parametrize(
    ("fields", "status", "method", "target", "reason"),
    [
        pytest.param({":path": "/none"}, 404, "GET", "/none", "no route", id="404"),
        pytest.param({":path": "/a", "content-length": "3"}, 400, "GET", "/a", "3 bytes, got none", id="400"),
        pytest.param({":path": "/%zz"}, 400, "GET", "/%zz", "escapes", id="400-path"),
        pytest.param({":path": "*", ":method": "OPTIONS"}, 200, "OPTIONS", "*", "", id="options"),
    ],
)
async def test_answers_over_http_2_are_logged_alike(
    bench: Bench, logged: pytest.LogCaptureFixture, fields: dict[str, str], status: int, method: str, target: str,
    reason: str,
) -> None:  # fmt: skip
    proxy, port = await bench.edge(plain(1), tls=True, alpn=("h2", "http/1.1"))
    log_all(proxy)
    peer = await Http2Peer.connect(bench, port)
    peer.request(list((dict(GET_2) | fields | {"x-request-id": "r1"}).items()))
    await peer.read(lambda: peer.heads)
    await until(lambda: lines(logged))
    (line,) = lines(logged)
    assert {**line, **KNOWN, "status": status, "method": method, "target": target} == line
    assert reason in line["reason"]
    assert 0 <= line["took_ms"] < 5000
    peer.writer.close()
