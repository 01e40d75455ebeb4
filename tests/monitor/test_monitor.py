"""Tests of the monitor with both probers, real TLS servers, a real CRL over HTTP, and real webhooks."""

import asyncio
import contextlib
import json
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Revoked, Urls, issue_crl, issue_leaf, new_key
from monitor import command
from monitor.alarms import AGREEMENT, CHANNEL, HEARTBEAT, Subject
from monitor.channels import Webhook
from monitor.judgement import State
from monitor.probers import Collector, OpensslProber, Prober, SslProber, Target
from monitor.watcher import Settings, UnknownMessageError, Watcher, export
from stub import AsyncStub
from telemetry import Telemetry
from tests.peers import OK, Papers, Peers, papers, peers, replying

__all__ = ["papers", "peers"]
HOST = "127.0.0.1"


def watcher(papers: Papers, *targets: Target, **more: Any) -> Watcher:
    stub = AsyncStub([(HOST, 9)])  # never queried, because the hosts are IP addresses
    probers: list[Prober] = [SslProber(papers.trust, stub), OpensslProber(papers.trust)]
    return Watcher(targets, probers, Collector(stub), **more)


@contextlib.asynccontextmanager
async def http(application: web.Application) -> AsyncIterator[str]:
    """Serve *application* on a loopback address; yield its URL."""
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def states(made: Watcher, check: str) -> list[State]:
    return [f.state for look in made.looks for f in look.findings if f.check == check]


async def test_both_probers_see_that_a_certificate_is_for_another_name(peers: Peers) -> None:
    port = await peers.start(replying(OK), peers.papers.server("other.example.com"))
    made = watcher(peers.papers, Target(HOST, port))
    await made.round()
    assert states(made, "connection") == [State.OK] * 2
    assert states(made, "chain") == [State.ALARM] * 2
    assert states(made, "names") == [State.ALARM] * 2
    assert len({look.seen.serial for look in made.looks}) == 1
    assert command.exit_code(made) == command.ALARM


async def test_a_server_that_does_not_answer_is_an_alarm_of_both_probers(papers: Papers) -> None:
    made = watcher(papers, Target(HOST, 9))
    await made.round()
    assert states(made, "connection") == [State.ALARM] * 2
    assert {s.check for s in made.alarms.active} == {"connection"}


async def test_a_broken_resolver_of_one_prober_does_not_hide_the_endpoint(peers: Peers) -> None:
    port = await peers.start(replying(OK), peers.papers.server("localhost"))
    stub = AsyncStub([(HOST, 9)], timeout=0.2)
    probers: list[Prober] = [SslProber(peers.papers.trust, stub), OpensslProber(peers.papers.trust)]
    made = Watcher([Target("localhost", port)], probers, Collector(stub))
    for _ in range(2):
        await made.round()
    assert states(made, "connection") == [State.ALARM, State.OK]
    assert "DNS" in made.alarms.active[Subject(f"localhost:{port}", AGREEMENT)]


@pytest.mark.parametrize("revoked", [False, True], ids=["good", "revoked"])
async def test_revocation_is_read_from_the_list_of_the_issuer(peers: Peers, tmp_path: Path, revoked: bool) -> None:
    issuer, now, key = peers.papers.issuer, time.time(), new_key()
    lists: list[bytes] = []

    async def crl(_: web.Request) -> web.Response:
        return web.Response(body=lists[0])

    application = web.Application()
    application.router.add_get("/crl", crl)
    async with http(application) as url:
        leaf = issue_leaf(issuer, key.public_key(), ["localhost"], now, 600.0, 60.0, Urls(f"{url}crl", f"{url}cer"))
        entries = [Revoked(leaf.serial_number, now, 1)] if revoked else []
        lists.append(issue_crl(issuer, entries, 1, now, 600.0, 60.0).public_bytes(Encoding.DER))
        pair = tmp_path / "pair.pem"
        pair.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + leaf.public_bytes(Encoding.PEM)
            + issuer.certificate.public_bytes(Encoding.PEM)
        )
        context = peers.papers.server()
        context.load_cert_chain(pair)
        port = await peers.start(replying(OK), context)
        made = watcher(peers.papers, Target(HOST, port, pair))
        await made.round()
    assert states(made, "revocation") == [State.ALARM if revoked else State.OK] * 2
    assert states(made, "disk") == [State.OK] * 2


async def test_alarms_and_heartbeats_reach_a_webhook_and_wait_while_it_is_down(papers: Papers) -> None:
    received: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response()

    application = web.Application()
    application.router.add_post("/", take)
    async with http(application) as url:
        down, up = Webhook("http://127.0.0.1:9/"), Webhook(url)
        made = watcher(papers, Target(HOST, 9), webhooks=[down, up], settings=Settings("one", 7.0))
        await made.round()
        assert Subject(down.url, CHANNEL) in made.alarms.active
        kinds = [each["kind"] for each in received]
        # One alarm from each prober, a heartbeat, and then an alarm about the channel that is down.
        assert kinds == ["alarm", "alarm", "heartbeat", "alarm"]
        assert (received[2]["from"], received[2]["interval"]) == ("one", 7.0)
        down.url = url
        await made.round()
        assert (down.failure, Subject(url, CHANNEL) in made.alarms.active) == ("", False)
        assert [each["check"] for each in received[4:] if each["kind"] == "alarm"].count("connection") == 2


async def test_metrics_health_and_heartbeats_of_others_are_on_the_port(peers: Peers) -> None:
    port = await peers.start(replying(OK), peers.papers.server("localhost", end=3.0))
    made = watcher(peers.papers, Target("localhost", port))
    made.probers[0].stub = AsyncStub([(HOST, 9)], timeout=0.1)  # type: ignore[attr-defined]  # the first prober is an `SslProber`
    telemetry = Telemetry("monitor")
    export(made, telemetry)
    await made.round()
    args = Namespace(admin=(HOST, 0), token_file=None)
    async with telemetry.serving(args), ClientSession() as session:
        assert telemetry.admin_address is not None
        url = f"http://{HOST}:{telemetry.admin_address[1]}"
        beat = {"kind": "heartbeat", "from": "other", "interval": 0.001}
        async with session.post(f"{url}/heartbeat", json=beat) as response:
            assert response.status == 200
        async with session.post(f"{url}/heartbeat", json={"from": 1}) as response:
            assert response.status == 400
        await made.round()
        async with session.get(f"{url}/metrics") as response:
            metrics = await response.text()
        async with session.get(f"{url}/health") as response:
            assert response.status == 503
    assert f'firstbyte_monitor_not_after_seconds{{target="localhost:{port}",prober="openssl"}}' in metrics
    assert f'firstbyte_monitor_alarm{{about="localhost:{port}",check="expiry",prober="openssl"}} 1' in metrics
    assert Subject("other", HEARTBEAT) in made.alarms.active


async def test_alarms_of_another_monitor_are_forwarded_once(papers: Papers) -> None:
    received: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response()

    application = web.Application()
    application.router.add_post("/", take)
    async with http(application) as url:
        made = watcher(papers, webhooks=[Webhook(url)])
        alarm = {"kind": "alarm", "about": "a:443", "check": "expiry"}
        made.receive(alarm)
        made.receive({**alarm, "forwarded": True})
        with pytest.raises(UnknownMessageError):
            made.receive(["alarm"])
        await made.round()
    assert [each for each in received if each["kind"] == "alarm"] == [{**alarm, "forwarded": True}]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["www.example.com"], "expected HOST:PORT"),
        ([], "expected HOST:PORT"),
        (["a:1", "--webhook", "ftp://a/"], "expected an http or https URL"),
        (["a:1", "--interval", "0"], "expected 0.5 to 86400 seconds"),
        (["a:1", "--alarm-at", "2"], "expected a share"),
        (["a:1", "--trust", "/nonexistent"], "expected a file with roots in PEM"),
        (["a:1", "--trust", "/dev/null"], "expected a file with roots in PEM"),
    ],
)
def test_a_wrong_flag_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(words)
    assert says in capsys.readouterr().err


async def test_one_look_prints_json_and_sets_the_exit_code(peers: Peers, capsys: pytest.CaptureFixture[str]) -> None:
    port = await peers.start(replying(OK), peers.papers.server("other.example.com"))
    words = [f"{HOST}:{port}", "--once", "--json", "--trust", str(peers.papers.trust)]
    assert await asyncio.to_thread(command.main, words) == command.ALARM
    body = json.loads(capsys.readouterr().out)
    assert body["exit_code"] == 1
    assert {each["prober"] for each in body["endpoints"]} == {"python", "openssl"}
    assert all(each["findings"]["names"]["state"] == "alarm" for each in body["endpoints"])


async def test_each_round_of_a_running_monitor_prints_one_line_of_json(
    papers: Papers, capsys: pytest.CaptureFixture[str]
) -> None:
    made, stop, lines = watcher(papers, Target(HOST, 9), settings=Settings(interval=0.01)), asyncio.Event(), []

    def after() -> None:
        command._show_line(made)
        lines.append(json.loads(capsys.readouterr().out))
        if len(lines) == 2:
            stop.set()

    await asyncio.wait_for(made.run(stop, after), 20)
    assert [(each["exit_code"], each["alarms"][0]["check"]) for each in lines] == [(1, "connection")] * 2
