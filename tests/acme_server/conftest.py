"""Fixture with a CA on loopback: key ceremony, ACME server over HTTPS, DNS server, and a web server for http-01."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

import serving
from acme_server.own_certificate import OwnCertificate
from acme_server.server import AcmeServer, Settings
from authority import Ceremony, Store, load_issuer
from nameserver import Responder, parse
from stub import AsyncStub
from telemetry import Telemetry

ZONE = """
$TTL 60
@ IN SOA ns hm 1 2 3 4 1
@ IN NS ns
@ IN CAA 0 issue "ca.example.com"
* IN A 127.0.0.1
ns IN A 127.0.0.1
far IN A 127.0.0.1
forbidden IN A 127.0.0.1
forbidden IN CAA 0 issue "another.example.com"
nowhere IN TXT "no address"
closed IN A 127.0.0.9
"""


@dataclasses.dataclass
class Lab:
    """A running CA, and the addresses and files that an ACME client needs to use it."""

    folder: Path
    server: AcmeServer
    own: OwnCertificate
    stub: AsyncStub
    directory: str
    trust: Path
    #: http-01 responses of the test's web server, by token.
    answers: dict[str, str]
    #: Folder from which that web server also serves http-01 responses, in one file per token.
    webroot: Path
    #: The web server replies while this event is set, and delays its response while it is cleared.
    answering: asyncio.Event
    #: Set when the web server receives its first http-01 request.
    challenged: asyncio.Event

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trust)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.asynccontextmanager
async def site(application: web.Application, **options) -> AsyncIterator[int]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0, **options)
    await listener.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    folders = [tmp_path / name for name in ("root", "ca", "trust", "passphrase", "token")]
    for each in folders:
        each.mkdir()
    telemetry = Telemetry("acme_server")
    Ceremony(*folders).run(telemetry.clock.time())
    responder = Responder()
    responder.put(parse("example.com.", ZONE))
    answers: dict[str, str] = {}
    webroot = tmp_path / "webroot"
    webroot.mkdir()
    answering, challenged = asyncio.Event(), asyncio.Event()
    answering.set()

    def dns(wire: bytes, client: tuple[str, int], transport: str) -> bytes | None:
        response = responder.respond(wire, udp=transport == "udp")
        return None if response is None else response.wire

    async def challenge(request: web.Request) -> web.Response:
        challenged.set()
        await answering.wait()
        token = request.match_info["token"]
        answer = answers.get(token)
        if answer is None and (webroot / token).is_file():
            answer = (webroot / token).read_text()
        return web.Response(status=404) if answer is None else web.Response(text=answer)

    http = web.Application()
    http.router.add_get("/.well-known/acme-challenge/{token}", challenge)
    async with contextlib.AsyncExitStack() as stack:
        listener = await serving.start(("127.0.0.1", 0), dns)
        stack.push_async_callback(listener.close)
        http01 = await stack.enter_async_context(site(http))
        store = Store(tmp_path / "ca" / "store.sqlite")
        stack.callback(store.close)
        issuer = load_issuer(tmp_path / "ca", tmp_path / "passphrase" / "passphrase")
        stub = AsyncStub([listener.address])
        port = free_port()
        settings = Settings(f"https://ca.example.com:{port}", 60.0, http01, "ca.example.com")
        server = AcmeServer(telemetry, issuer, store, stub, settings)
        own = OwnCertificate(server.leaves, "ca.example.com", tmp_path / "ca")
        runner = web.AppRunner(server.application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(server.close)
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=own.context).start()
        yield Lab(
            tmp_path,
            server,
            own,
            stub,
            f"{settings.base}/directory",
            tmp_path / "trust" / "root.pem",
            answers,
            webroot,
            answering,
            challenged,
        )
