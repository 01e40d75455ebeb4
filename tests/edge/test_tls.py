"""Tests for TLS with clients and origins: versions, names, and certificate changes during connections."""

import asyncio
import json
import ssl
import time

import pytest

from edge import Target
from edge.proxy import Proxy
from renewal import Reload
from stub import Answer
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, Papers, read_request, replying


def resolve_here(proxy: Proxy, name: str) -> None:
    """Store a loopback address for *name* in the cache of the edge's stub resolver."""
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
    reported = seen[0][1]["x-forwarded-tls"]
    assert reported.startswith(f"version={version.name.replace('_', '.')}; cipher=")
    assert reported.endswith("; resumed=no")
    assert seen[0][1]["x-forwarded-proto"] == "https"


async def test_an_origin_with_another_name_is_not_trusted(bench: Bench, papers: Papers) -> None:
    origin = await bench.start(replying(OK), papers.server("evil.example.com", mutual=True))
    proxy, port = await bench.edge(Target("catalog-1.example.com", origin))
    resolve_here(proxy, "catalog-1.example.com")
    status, _, body = parts(await talk(port, GET))
    assert status == 502
    assert json.loads(body)["upstream"] == f"catalog-1.example.com:{origin}"
    assert "certificate" in json.loads(body)["reason"]


async def test_a_restart_cuts_clients_and_refuses_new_ones_and_a_hot_reload_does_neither(
    bench: Bench, papers: Papers
) -> None:
    asked = asyncio.Event()

    async def slow(reader, writer) -> None:
        while True:
            await read_request(reader)
            asked.set()
            await asyncio.sleep(0.05)  # delays the response until after the certificate change
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(slow)), tls=True)
    under_way = asyncio.create_task(talk(port, GET, papers.client()))
    await asked.wait()
    asked.clear()
    proxy.certificate_changed(Reload())
    assert parts(await under_way)[0] == 200
    under_way = asyncio.create_task(talk(port, GET, papers.client()))
    await asked.wait()
    proxy.certificate_changed(Reload(restart=True, down_s=0.2))
    assert await under_way == b""
    with pytest.raises(ConnectionRefusedError):
        await talk(port, GET, papers.client())
    await asyncio.sleep(0.25)  # longer than the simulated downtime of 0.2 s
    assert parts(await talk(port, GET, papers.client()))[0] == 200


async def test_an_old_tls_version_is_refused(bench: Bench, papers: Papers) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), tls=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes.fromhex("160301002f0100002b0301") + bytes(32) + bytes.fromhex("000004002f003501000000"))
    assert (await reader.read(3))[:1] in {b"", b"\x15"}
    writer.close()
    await writer.wait_closed()
    assert ssl.HAS_TLSv1_3
