"""The edge over real sockets: what passes, what is refused, what happens when an origin misbehaves."""

import asyncio
import json
import re
import ssl
import time

import pytest

from edge import Limits, Route, Target, parse_route
from edge.__main__ import main
from edge.exchange import Exchange
from edge.proxy import Proxy
from renewal import Reload
from stub import Answer
from tests.edge.conftest import Bench, talk
from tests.peers import OK, Papers, read_request, replying

GET = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"


def plain(port: int) -> Target:
    return Target("127.0.0.1", port, tls=False)


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:])}, body


async def test_a_request_passes_with_the_right_fields(bench: Bench) -> None:
    seen = []

    async def script(reader, writer) -> None:
        seen.append(await read_request(reader))
        writer.write(
            b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 2\r\n\r\nok"
        )

    _, port = await bench.edge(plain(await bench.start(script)))
    request = (
        b"POST /a?b=c HTTP/1.1\r\nHost: www.example.com\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\n"
        b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: ftp\r\nContent-Length: 3\r\n\r\nabc"
    )
    status, fields, body = parts(await talk(port, request))
    line, sent, received = seen[0]
    assert (status, body, line, received) == (200, b"ok", "POST /a?b=c HTTP/1.1", b"abc")
    assert sent["host"] == sent["x-forwarded-host"] == "www.example.com"
    assert sent["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert sent["x-forwarded-proto"] == "http"
    assert sent["via"] == "1.1 firstbyte-edge"
    assert not {"x-secret", "te", "connection", "keep-alive"} & set(sent)
    assert fields["x-end"] == "2"
    assert "x-hop" not in fields
    assert "keep-alive" not in fields
    assert fields["connection"] == "close"
    assert "pool;dur=0" in fields["server-timing"]
    assert 'desc="fresh"' in fields["server-timing"]
    assert re.search(
        r'upstream;dur=[0-9.]+;desc="http://127\.0\.0\.1:[0-9]+"', fields["server-timing"]
    )  # which origin it was


async def test_pooled_connections_are_reused_and_fresh_ones_are_not(bench: Bench) -> None:
    connections = 0

    async def script(reader, writer) -> None:
        nonlocal connections
        connections += 1
        await replying(OK)(reader, writer)

    origin = await bench.start(script)
    _, pooled = await bench.edge(plain(origin))
    for _ in range(3):
        answer = await talk(pooled, GET)
    assert connections == 1
    assert b'desc="reused"' in answer
    _, fresh = await bench.edge(plain(origin), pooled=False)
    for _ in range(3):
        answer = await talk(fresh, GET)
    assert connections == 4
    assert b'desc="fresh"' in answer


def resolve_here(proxy: Proxy, name: str) -> None:
    """Let the edge's stub know *name* as one on loopback."""
    now = time.monotonic()
    answer = Answer(name, "A", ("127.0.0.1",), 60.0, now + 60.0, False, 0.0, "", canonical_name=name)
    proxy.stub.cache.put(name, "A", answer, 60.0, now)


async def test_mutual_tls_to_the_origin_by_name_and_tls_to_the_client(bench: Bench, papers: Papers) -> None:
    subject = []

    async def script(reader, writer) -> None:
        subject.append(writer.get_extra_info("peercert")["subjectAltName"])
        await replying(OK)(reader, writer)

    origin = await bench.start(script, papers.server("catalog-1.example.com", mutual=True))
    proxy, port = await bench.edge(Target("catalog-1.example.com", origin), tls=True)
    resolve_here(proxy, "catalog-1.example.com")
    assert parts(await talk(port, GET, papers.client()))[0] == 200
    assert subject == [(("DNS", "www.example.com"),)]
    assert 'version="TLSv1.3"' in proxy.telemetry.metrics.render()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_both_versions_of_tls_are_spoken_and_an_origin_is_told_which(
    bench: Bench, papers: Papers, version: ssl.TLSVersion
) -> None:
    seen = []

    async def script(reader, writer) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    _, port = await bench.edge(plain(await bench.start(script)), tls=True)
    context = papers.client()
    context.minimum_version = context.maximum_version = version
    claimed = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-TLS: version=SSLv2\r\n\r\n")
    assert parts(await talk(port, claimed, context))[0] == 200
    told = seen[0][1]["x-forwarded-tls"]
    assert told.startswith(f"version={version.name.replace('_', '.')}; cipher=")
    assert told.endswith("; resumed=no")
    assert seen[0][1]["x-forwarded-proto"] == "https"


async def test_an_origin_with_another_name_is_not_trusted(bench: Bench, papers: Papers) -> None:
    origin = await bench.start(replying(OK), papers.server("evil.example.com", mutual=True))
    proxy, port = await bench.edge(Target("catalog-1.example.com", origin))
    resolve_here(proxy, "catalog-1.example.com")
    status, _, body = parts(await talk(port, GET))
    assert status == 502
    assert json.loads(body)["upstream"] == f"catalog-1.example.com:{origin}"
    assert "certificate" in json.loads(body)["reason"]


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
async def test_bodies_of_any_size_pass_both_ways_in_chunks(bench: Bench, size: int) -> None:
    async def echo(reader, writer) -> None:
        _, _, body = await read_request(reader)
        half = len(body) // 2
        pieces = [p for p in (body[:half], body[half:]) if p]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(echo)))
    data = bytes(i % 251 for i in range(size))
    head = b"POST / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = head + (b"%x\r\n%b\r\n" % (size, data) if size else b"") + b"0\r\n\r\n"
    status, fields, body = parts(await talk(port, request))
    assert (status, fields["transfer-encoding"]) == (200, "chunked")
    received = b""
    while body:
        length, _, rest = body.partition(b"\r\n")
        received, body = received + rest[: int(length, 16)], rest[int(length, 16) + 2 :]
    assert received == data


@pytest.mark.parametrize(
    ("request_", "reply", "status", "body"),
    [
        pytest.param(GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"", id="head"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
        pytest.param(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", id="304"),
        pytest.param(GET, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok", id="interim"),
        pytest.param(GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok", id="http-1.0-client"),
    ],
)  # fmt: skip
async def test_messages_without_and_with_bodies(
    bench: Bench, request_: bytes, reply: bytes, status: int, body: bytes
) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(reply))))
    got, _, content = parts(await talk(port, request_))
    assert (got, content) == (status, body)


async def test_a_response_that_ends_with_the_connection_is_chunked_for_the_client(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(script)))
    assert (await talk(port, GET)).endswith(b"d\r\nuntil the end\r\n0\r\n\r\n")


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            path = line.split()[1].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    _, port = await bench.edge(plain(await bench.start(script)))
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: x.test\r\n\r\n" % i for i in range(20))
    answer = await talk(port, requests + GET.replace(b"/ ", b"/last "))
    assert [line for line in answer.replace(b"HTTP/1.1", b"\nHTTP/1.1").split(b"\n") if line.startswith(b"/")] == [
        *(b"/%d" % i for i in range(20)), b"/last",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="length-and-coding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, id="two-lengths"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400, id="signed-length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, id="other-coding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, id="almost-chunked"),
        pytest.param(b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="chunked-in-1.0"),
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


async def closes(reader, writer) -> None:
    await read_request(reader)


async def resets(reader, writer) -> None:
    await read_request(reader)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        pytest.param(closes, 502, "closed", id="closes"),
        pytest.param(resets, 502, "closed", id="resets"),
        pytest.param(replying(b"nonsense\r\n\r\n"), 502, "expected an HTTP response", id="nonsense"),
        pytest.param(
            replying(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), 502, "more than", id="many-fields"
        ),
        pytest.param(
            replying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), 502, "", id="upgrade"
        ),
    ],
)
async def test_an_origin_that_misbehaves_before_the_first_byte_is_a_502_with_its_name(
    bench: Bench, script, status: int, reason: str
) -> None:
    origin = await bench.start(script)
    _, port = await bench.edge(plain(origin))
    got, _, body = parts(await talk(port, GET))
    assert got == status
    assert json.loads(body)["upstream"] == f"http://127.0.0.1:{origin}"
    assert reason in json.loads(body)["reason"]


async def test_an_origin_that_refuses_is_a_502_and_a_silent_one_a_504(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = await bench.edge(Target("127.0.0.1", 1, tls=False))
    status, _, body = parts(await talk(port, GET))
    assert (status, "refused" in json.loads(body)["reason"].lower()) == (502, True)

    async def silent(reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(1)

    monkeypatch.setattr("edge.exchange.RESPONSE_TIMEOUT", 0.05)
    _, port = await bench.edge(plain(await bench.start(silent)))
    assert parts(await talk(port, GET))[0] == 504


async def test_a_response_cut_short_does_not_look_whole(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(script)))
    _, fields, body = parts(await talk(port, GET))
    assert len(body) < int(fields["content-length"])


async def test_a_dead_origin_is_passed_over(bench: Bench) -> None:
    alive = await bench.start(replying(OK))
    _, port = await bench.edge(Target("127.0.0.1", 1, tls=False), plain(alive))
    for _ in range(6):
        assert parts(await talk(port, GET))[0] == 200


async def test_a_reused_connection_that_died_is_replaced_without_the_client_noticing(bench: Bench) -> None:
    async def one_each(reader, writer) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the next request is read, and never answered

    _, port = await bench.edge(plain(await bench.start(one_each)))
    for _ in range(3):
        assert parts(await talk(port, GET))[0] == 200
    # What is not idempotent is not sent twice.
    post = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"
    assert parts(await talk(port, post))[0] == 502


async def test_a_full_pool_makes_requests_wait_and_a_full_queue_refuses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(reader, writer) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.03)
            writer.write(OK)

    origin = plain(await bench.start(slow))
    _, port = await bench.edge(origin, limits=Limits(per_target=1))
    assert [parts(a)[0] for a in await asyncio.gather(*(talk(port, GET) for _ in range(4)))] == [200] * 4
    _, port = await bench.edge(origin, limits=Limits(per_target=1, waiting=1))
    answers = [parts(a) for a in await asyncio.gather(*(talk(port, GET) for _ in range(4)))]
    assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503]
    assert all(fields.get("retry-after") == "1" for status, fields, _ in answers if status == 503)


async def test_a_slow_client_holds_the_origin_back(bench: Bench) -> None:
    sent = 0

    async def flood(reader, writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()

    _, port = await bench.edge(plain(await bench.start(flood)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.3)
    held = sent
    assert held < 25_000_000
    received = 0
    while chunk := await reader.read(1 << 20):
        received += len(chunk)
    assert received == 50_000_000
    writer.close()
    await writer.wait_closed()


async def test_a_connection_that_a_slow_client_held_back_serves_the_next_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body_that_fills_the_buffer(exchange: Exchange, data: bytes) -> None:
        receive(exchange, data)
        exchange.client_writable(writable=False)  # as the transport says it when the last piece has to wait

    receive = Exchange.response_body
    _, port = await bench.edge(plain(await bench.start(replying(OK))), limits=Limits(per_target=1))
    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "response_body", body_that_fills_the_buffer)
        assert parts(await talk(port, GET))[0] == 200
    async with asyncio.timeout(5):
        status, fields, body = parts(await talk(port, GET))
    assert (status, body) == (200, b"ok")
    assert "reused" in fields["server-timing"]


async def test_an_idle_connection_that_its_origin_closes_leaves_the_pool_of_its_own_route(bench: Bench) -> None:
    async def once(reader, writer) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()

    proxy, _ = await bench.edge(plain(await bench.start(once)))
    route = Route("/own", (plain(await bench.start(once)),))
    proxy.routes = (*proxy.routes, route)
    proxy.pools[route] = type(proxy.pools[proxy.routes[0]])(proxy, route, None)
    _, port = await proxy.listen(("127.0.0.1", 0), "other")
    assert parts(await talk(port, GET.replace(b"GET / ", b"GET /own ")))[0] == 200
    await asyncio.sleep(0.1)
    assert [row["idle"] for row in proxy.pools[route].core.describe(time.monotonic())] == [0]


async def test_a_restart_cuts_clients_and_refuses_new_ones_and_a_hot_reload_does_neither(
    bench: Bench, papers: Papers
) -> None:
    async def slow(reader, writer) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.05)
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(slow)), tls=True)
    under_way = asyncio.create_task(talk(port, GET, papers.client()))
    await asyncio.sleep(0.03)
    proxy.certificate_changed(Reload())
    assert parts(await under_way)[0] == 200
    under_way = asyncio.create_task(talk(port, GET, papers.client()))
    await asyncio.sleep(0.03)
    proxy.certificate_changed(Reload(restart=True, down_s=0.2))
    assert await under_way == b""
    with pytest.raises(ConnectionRefusedError):
        await talk(port, GET, papers.client())
    await asyncio.sleep(0.25)
    assert parts(await talk(port, GET, papers.client()))[0] == 200


async def test_stopping_finishes_what_is_under_way(bench: Bench) -> None:
    async def slow(reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(0.05)
        writer.write(OK)
        await writer.drain()

    proxy, port = await bench.edge(plain(await bench.start(slow)))
    under_way = asyncio.create_task(talk(port, GET.replace(b"Connection: close\r\n", b"")))
    await asyncio.sleep(0.02)
    await proxy.close()
    status, fields, _ = parts(await under_way)
    assert (status, fields["connection"]) == (200, "close")


async def test_challenges_are_answered_on_the_plain_port_only(bench: Bench, papers: Papers) -> None:
    origin = plain(await bench.start(replying(OK)))
    path = b"GET /.well-known/acme-challenge/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    _, port = await bench.edge(origin, challenge={"tok": "tok.print"}.get)
    assert parts(await talk(port, path % b"tok"))[::2] == (200, b"tok.print")
    assert parts(await talk(port, path % b"other"))[0] == 404
    _, port = await bench.edge(origin, challenge={"tok": "tok.print"}.get, tls=True)
    assert parts(await talk(port, path % b"tok", papers.client()))[2] == b"ok"


async def test_slow_heads_are_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.client.HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr("edge.proxy.TICK", 0.02)
    _, port = await bench.edge(plain(await bench.start(replying(OK))))
    assert parts(await talk(port, b"GET / HTT"))[0] == 408


async def test_a_short_keep_alive_closes_to_the_millisecond(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    proxy.telemetry.faults.switch_on("short_keep_alive", {"s": 0.2})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):  # the second request begins the silence anew
        writer.write(GET.replace(b"Connection: close\r\n", b""))
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        silent = time.monotonic()
        await asyncio.sleep(0.1)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert 0.19 < time.monotonic() - silent < 1.0
    writer.close()
    await writer.wait_closed()


async def test_an_old_tls_version_is_refused(bench: Bench, papers: Papers) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), tls=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes.fromhex("160301002f0100002b0301") + bytes(32) + bytes.fromhex("000004002f003501000000"))
    assert (await reader.read(3))[:1] in {b"", b"\x15"}
    writer.close()
    await writer.wait_closed()
    assert ssl.HAS_TLSv1_3


@pytest.mark.parametrize("text", ["x", "/=", "/=host", "/=host:0", "/=host:99999", "news=host:1"])
def test_bad_routes_say_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_route(text)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--upstream", "/=h:1"], "expected at least one of --https"),
        (["--upstream", "/=h:1", "--https", "127.0.0.1:0"], "expected --acme, or --cert and --key"),
        (
            ["--upstream", "/=h:1", "--https", "127.0.0.1:0", "--acme", "https://ca/directory"],
            "expected --tls-dir, --trust, --cert-name",
        ),
        (["--upstream", "h:1", "--http", "127.0.0.1:0"], "expected /PREFIX=HOST:PORT"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
