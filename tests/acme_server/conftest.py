"""Fixture with a CA on loopback: key ceremony, ACME server over HTTPS, DNS server, and a web server for http-01."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acme_server.own_certificate import OwnCertificate
from acme_server.server import AcmeServer, Settings
from authority import Ceremony, Store, issue_root, load_issuer, new_key
from dnsmessage.keyfile import parse_keys
from nameserver import access
from nameserver.access import Access
from nameserver.server import Server
from renewal.client import StubResolver
from stub import AsyncStub
from telemetry import Telemetry
from tests.acme_server.browser import Browser, Signer

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
SECRET = "b25seSBmb3IgdGVzdHMsIG5vdCBhIHNlY3JldA=="
KEY = f'key "writer" {{ algorithm hmac-sha256; secret "{SECRET}"; }};'
WRITER = Access(parse_keys(KEY), (), (access.writer("example.com.=writer:TXT:_acme-challenge.*"),))


@dataclasses.dataclass
class Lab:
    """A running CA, and the addresses and files that an ACME client needs to use it."""

    folder: Path
    #: Primary name server of example.com, which accepts UPDATE messages signed with `KEY`.
    names: Server
    server: AcmeServer
    own: OwnCertificate
    stub: AsyncStub
    directory: str
    trust: Path
    #: http-01 responses of the test's web server, by token.
    answers: dict[str, str]
    #: Folder from which the test's web server also serves http-01 responses, in one file per token.
    webroot: Path
    #: The test's web server replies while this event is set, and delays its responses while it is cleared.
    answering: asyncio.Event
    #: Set when the test's web server receives its first http-01 request.
    challenged: asyncio.Event
    #: If not empty, contains a function that creates every response of the test's web server.
    misbehaviour: list[Callable[[web.Request], web.Response]]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trust)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def bound() -> socket.socket:
    """Return a socket bound to a free loopback port, so that no other program can take the port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@contextlib.asynccontextmanager
async def site(application: web.Application, sock: socket.socket | None = None, **options) -> AsyncIterator[int]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.SockSite(runner, sock or bound(), **options)
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
    (tmp_path / "zone").write_text(ZONE)
    names = Server(Telemetry("nameserver"), {"example.com.": tmp_path / "zone"}, WRITER)
    answers: dict[str, str] = {}
    webroot = tmp_path / "webroot"
    webroot.mkdir()
    answering, challenged = asyncio.Event(), asyncio.Event()
    misbehaviour: list[Callable[[web.Request], web.Response]] = []
    answering.set()

    async def challenge(request: web.Request) -> web.Response:
        challenged.set()
        await answering.wait()
        if misbehaviour:
            return misbehaviour[0](request)
        token = request.match_info["token"]
        answer = answers.get(token)
        if answer is None and (webroot / token).is_file():
            answer = (webroot / token).read_text()
        return web.Response(status=404) if answer is None else web.Response(text=answer)

    http = web.Application()
    http.router.add_get("/.well-known/acme-challenge/{token}", challenge)
    http.router.add_get("/moved/{token}", challenge)
    https = web.Application()
    https.router.add_get("/moved/{token}", challenge)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(names.close)
        listener = await names.start(("127.0.0.1", 0))
        stack.push_async_callback(listener.close)
        http01 = await stack.enter_async_context(site(http))
        https01 = await stack.enter_async_context(site(https, ssl_context=self_signed(tmp_path)))
        store = Store(tmp_path / "ca" / "store.sqlite")
        stack.callback(store.close)
        issuer = load_issuer(tmp_path / "ca", tmp_path / "passphrase" / "passphrase")
        stub = AsyncStub([listener.address])
        https_socket, http_socket = stack.enter_context(bound()), stack.enter_context(bound())
        port, plain = https_socket.getsockname()[1], http_socket.getsockname()[1]
        settings = Settings(
            f"https://ca.example.com:{port}",
            60.0,
            http01,
            "ca.example.com",
            https01,
            f"http://ca.example.com:{plain}",
            listener.address[1],
        )
        server = AcmeServer(telemetry, issuer, store, [stub], settings)
        server.published.renew_if_due(telemetry.clock.time())
        await stack.enter_async_context(site(server.published.application(), http_socket))
        own = OwnCertificate(server.leaves, "ca.example.com", tmp_path / "ca")
        runner = web.AppRunner(server.application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(server.validations.close)
        await web.SockSite(runner, https_socket, ssl_context=own.context).start()
        yield Lab(
            tmp_path,
            names,
            server,
            own,
            stub,
            f"{settings.base}/directory",
            tmp_path / "trust" / "root.pem",
            answers,
            webroot,
            answering,
            challenged,
            misbehaviour,
        )


@pytest.fixture
async def browser(lab: Lab) -> AsyncIterator[Browser]:
    connector = aiohttp.TCPConnector(resolver=StubResolver(lab.stub), ssl=lab.context())
    async with aiohttp.ClientSession(connector=connector) as http:
        yield Browser(lab, http, Signer())


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return the TLS context of a web server with a self-signed certificate."""
    key, file = new_key(), folder / "self-signed.pem"
    certificate = issue_root(key, "a web server that has no certificate yet", 0.0)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
