"""Tests for the origin server over real sockets, with and without client certificates."""

import aiohttp
import pytest
from aiohttp import web

from origin.__main__ import main
from origin.application import Options, answer_challenges, build, request_counter
from telemetry import Telemetry
from tests.acme_server.conftest import site
from tests.origin.conftest import catalog
from tests.peers import Papers, papers

__all__ = ["papers"]


@pytest.fixture
async def base():
    async with catalog(None) as port:
        yield f"http://127.0.0.1:{port}"


async def get(url: str, **options) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http, http.get(url, **options) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/", 200, b'"origin": "catalog-1.example.com"'),
        ("/news", 200, b'"origin"'),
        ("/items/syn", 200, b'"name": "SYN"'),
        ("/items/none", 404, b"GET /items lists them"),
        ("/bytes/0", 200, b""),
        ("/bytes/%C2%B2", 400, b"expected a number from 0 to"),
        ("/bytes/-1", 400, b"expected a number from 0 to"),
        ("/bytes/99999999999999", 400, b"expected a number from 0 to"),
        ("/delay/0", 200, b'"asked_ms": 0'),
        ("/delay/exp/1", 200, b'"waited_ms"'),
        ("/delay/x", 400, b"expected a number"),
        ("/nothing", 404, b""),
    ],
)
async def test_paths(base: str, path: str, status: int, expected: bytes) -> None:
    got, body = await get(base + path)
    assert got == status
    assert expected in body


@pytest.mark.parametrize("size", [1, 65_536, 1_000_001])
async def test_bytes_have_the_requested_size_and_a_known_pattern(base: str, size: int) -> None:
    _, body = await get(f"{base}/bytes/{size}")
    assert len(body) == size
    assert body[:200] == bytes(range(256))[: min(size, 200)]


async def test_whoami_without_tls(base: str) -> None:
    _, body = await get(f"{base}/whoami", headers={"X-Forwarded-For": "198.19.1.10", "Via": "1.1 edge"})
    assert b'"x-forwarded-for": "198.19.1.10"' in body
    assert b'"tls": null' in body


async def test_only_named_clients_are_accepted_over_mutual_tls(papers: Papers) -> None:
    application: web.Application = build(
        Options("c", "catalog", ("www.example.com",)), request_counter(Telemetry("origin")), mutual=True
    )
    context = papers.server("localhost.test", mutual=True)
    async with site(application, ssl_context=context) as port:
        url = f"https://127.0.0.1:{port}/whoami"
        status, body = await get(url, ssl=papers.client("www.example.com"), server_hostname="localhost.test")
        assert status == 200
        assert b'"client": ["www.example.com"]' in body
        status, body = await get(url, ssl=papers.client("evil.example.com"), server_hostname="localhost.test")
        assert status == 403
        assert b"expected a client certificate for www.example.com; got ['evil.example.com']" in body
        with pytest.raises(aiohttp.ClientError):
            await get(url, ssl=papers.client(), server_hostname="localhost.test")


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--name", "x", "--kind", "news"])
    assert exit_.value.code == 2
    assert "expected at least one of --mtls" in capsys.readouterr().err


@pytest.mark.parametrize("public", [True, False], ids=["with-https", "with-mutual-tls"])
async def test_port_80_answers_challenges_and_serves_only_public_pages(*, public: bool) -> None:
    options = Options("news.example.com", "news")
    pages = build(options, request_counter(Telemetry("origin")), mutual=False) if public else web.Application()
    async with site(answer_challenges(pages, {"token": "token.thumbprint"}.get)) as port:
        base = f"http://127.0.0.1:{port}"
        assert await get(f"{base}/.well-known/acme-challenge/token") == (200, b"token.thumbprint")
        assert (await get(f"{base}/.well-known/acme-challenge/other"))[0] == 404
        assert (await get(f"{base}/news"))[0] == (200 if public else 404)
