"""Tests for the edge's tap, which records decrypted requests on connections that are opened while the tap is on."""

from telemetry.admin import Request
from tests.edge.conftest import Bench, parts, plain, talk
from tests.peers import OK, Papers, replying

SECRET = b"GET /secret HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"


async def test_the_tap_shows_a_request_that_the_network_cannot_read(bench: Bench, papers: Papers) -> None:
    origin = plain(await bench.start(replying(OK)))
    proxy, port = await bench.edge(origin, tls=True)
    client = papers.client()
    assert parts(await talk(port, SECRET, client))[2] == b"ok"
    proxy.tap._start(Request("POST", "/admin/tap", body=b'{"seconds": 5}'))
    assert parts(await talk(port, SECRET, client))[2] == b"ok"
    assert proxy.tap._report()["records"] == [], "the pooled connection is older than the tap"
    proxy._purge(Request("POST", "/admin/pool/purge"))
    assert parts(await talk(port, SECRET, client))[2] == b"ok"
    (record,) = proxy.tap._report()["records"]
    assert record["where"] == str(origin)
    assert bytes.fromhex(record["hex"]).startswith(b"GET /secret HTTP/1.1\r\n")
    proxy.tap._stop(Request("DELETE", "/admin/tap"))
    assert parts(await talk(port, SECRET, client))[2] == b"ok", "the tapped connection is still of use"
    assert len(proxy.tap._report()["records"]) == 1
    assert [(row["opened"], row["reused"]) for row in proxy._rows()] == [(2, 2)]
