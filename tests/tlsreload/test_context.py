"""Tests for TLS servers whose certificates change while they are running."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector, web

from tests.peers import Papers, papers
from tests.waiting import until
from tlsreload import CertificateFiles, ReloadError, ReloadingContext

__all__ = ["papers"]

NAME = "www.example.com"


@pytest.fixture
def live(papers: Papers, tmp_path: Path) -> Path:
    """Return the path of a PEM file with key and certificate chain for `NAME`."""
    return Path(shutil.copy(papers.pair(NAME), tmp_path / "live.pem"))


def renew(papers: Papers, live: Path, name: str = NAME, **validity: float) -> str:
    """Replace the key and certificate atomically; return the new serial number in hexadecimal."""
    fresh = live.with_suffix(".new")
    shutil.copy(papers.pair(name, **validity), fresh)
    fresh.replace(live)
    return papers.serial


def both(path: Path) -> CertificateFiles:
    return CertificateFiles(path, path)


async def serial(port: int, papers: Papers, name: str = NAME, context: ssl.SSLContext | None = None) -> str:
    """Connect to an echo server and return its certificate's serial number in lower-case hexadecimal."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context or papers.client(), server_hostname=name
    )
    shown = writer.get_extra_info("peercert")["serialNumber"]
    try:
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return str(shown).lstrip("0").lower()


async def echoing(certificates: ReloadingContext) -> tuple[asyncio.Server, int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificates.context)
    return server, server.sockets[0].getsockname()[1]


async def test_a_thousand_reloads_under_handshakes_drop_none(papers: Papers, live: Path) -> None:
    certificates = ReloadingContext([both(live)])
    pairs = [papers.pair(NAME).read_bytes() for _ in range(4)]
    server, port = await echoing(certificates)
    stop = asyncio.Event()
    served = 0

    async def client() -> None:
        nonlocal served
        while not stop.is_set():
            await serial(port, papers)
            served += 1

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for number in range(1000):
        fresh = live.with_suffix(".new")
        fresh.write_bytes(pairs[number % 4])
        fresh.replace(live)
        certificates.reload()
        if number % 20 == 0:
            await asyncio.sleep(0.005)  # handshakes continue between two renewals
    stop.set()
    await asyncio.gather(*clients)
    server.close()
    assert served > 20


async def test_a_changed_file_is_noticed_and_a_bad_one_is_refused_once(papers: Papers, live: Path) -> None:
    certificates = ReloadingContext([both(live)])
    refused: list[str] = []
    watching = asyncio.create_task(certificates.watch(0.01, lambda error: refused.append(str(error))))
    new = renew(papers, live)
    await until(lambda: certificates.certificates[0].serial == new)
    live.write_bytes(b"half")
    await until(lambda: bool(refused))
    await asyncio.sleep(0.05)  # time for five more checks of the unchanged file
    assert len(refused) == 1
    assert str(live) in refused[0]
    assert certificates.certificates[0].serial == new
    newest = renew(papers, live)
    await until(lambda: certificates.certificates[0].serial == newest)
    watching.cancel()


def mismatched(papers: Papers, live: Path) -> None:
    key = papers.pair(NAME).read_bytes().partition(b"-----BEGIN CERTIFICATE-----")[0]
    chain = papers.pair(NAME).read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    live.write_bytes(key + chain[1] + chain[2])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda _, live: live.unlink(), "No such file", id="missing"),
        pytest.param(lambda _, live: live.write_bytes(live.read_bytes()[:600]), "in PEM", id="truncated"),
        pytest.param(mismatched, "KEY_VALUES_MISMATCH", id="key-mismatch"),
        pytest.param(lambda papers, live: renew(papers, live, begin=-60, end=-1), "valid now", id="expired"),
        pytest.param(lambda papers, live: renew(papers, live, begin=60), "valid now", id="not-yet-valid"),
    ],
)
async def test_what_cannot_be_used_leaves_the_old_pair_serving(
    papers: Papers, live: Path, spoil, expected: str
) -> None:
    certificates = ReloadingContext([both(live)])
    before = certificates.certificates[0].serial
    server, port = await echoing(certificates)
    spoil(papers, live)
    with pytest.raises(ReloadError, match=expected):
        certificates.reload()
    assert await serial(port, papers) == before
    server.close()


async def test_clients_get_the_certificate_of_the_name_that_they_ask_for(papers: Papers, tmp_path: Path) -> None:
    files, serials = [], {}
    for name in (NAME, "far.example.com"):
        files.append(both(Path(shutil.copy(papers.pair(name), tmp_path / name))))
        serials[name] = papers.serial
    server, port = await echoing(ReloadingContext(files))
    for name, expected in serials.items():
        assert await serial(port, papers, name) == expected
    lenient = papers.client()
    lenient.check_hostname = False
    assert await serial(port, papers, "other.example.com", lenient) == serials[NAME]
    server.close()


async def test_trust_in_clients_is_reloaded_too(papers: Papers, live: Path, tmp_path: Path) -> None:
    roots = tmp_path / "clients.pem"
    roots.write_bytes(Papers(tmp_path).trust.read_bytes())  # replace the roots with those of another CA
    certificates = ReloadingContext([both(live)], client_ca=roots)
    server, port = await echoing(certificates)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await serial(port, papers, context=papers.client(NAME))
    roots.write_bytes(papers.trust.read_bytes())
    certificates.reload()
    await serial(port, papers, context=papers.client(NAME))
    server.close()


def resumes(port: int, papers: Papers) -> bool:
    """Return whether a blocking client can resume its session on a second connection."""
    context = papers.client()
    sessions: list[ssl.SSLSession | None] = []
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            session = sessions[0] if sessions else None
            tls = context.wrap_socket(plain, server_hostname=NAME, session=session)
            tls.sendall(b"x")
            tls.recv(1)
            sessions.append(tls.session)
            reused = tls.session_reused
            tls.close()
    return bool(reused)


@pytest.mark.parametrize("resumption", [True, False])
async def test_sessions_are_issued_only_where_resumption_is_wanted(
    papers: Papers, live: Path, *, resumption: bool
) -> None:
    server, port = await echoing(ReloadingContext([both(live)], resumption=resumption))
    assert await asyncio.to_thread(resumes, port, papers) is resumption
    server.close()


async def test_an_aiohttp_server_follows_its_files_as_the_example_says(papers: Papers, live: Path) -> None:
    certificates = ReloadingContext([both(live)])

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def watch(_: web.Application):
        task = asyncio.create_task(certificates.watch(0.01))
        yield
        task.cancel()

    app = web.Application()
    app.router.add_get("/", hello)
    app.cleanup_ctx.append(watch)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.context)
    await site.start()
    port = runner.addresses[0][1]
    new = renew(papers, live)
    await until(lambda: certificates.certificates[0].serial == new)
    async with (
        ClientSession(connector=TCPConnector(ssl=papers.client())) as session,
        session.get(f"https://127.0.0.1:{port}/", server_hostname=NAME) as response,
    ):
        assert await response.text() == "hello"
    await runner.cleanup()


def test_no_certificate_at_all_is_refused() -> None:
    with pytest.raises(ReloadError, match="at least one"):
        ReloadingContext([])
