"""Tests for the outside prober and the requests on three paths, with real TLS servers on loopback."""

import asyncio
import time

import pytest

from drills.paths import NEW, PATHS, POOLED, RESUMED, Paths, Tried
from monitor.openssl import Prober, read
from tests.peers import OK, Papers, Peers, papers, peers, replying

__all__ = ["papers", "peers"]


@pytest.mark.parametrize(
    ("begin", "end", "name", "at", "error"),
    [
        (-60, 60, "www.example.com", None, ""),
        (-60, -5, "www.example.com", None, "certificate has expired"),
        (30, 60, "www.example.com", None, "certificate is not yet valid"),
        (-60, 60, "far.example.com", None, "hostname mismatch"),
        (-60, 60, "www.example.com", 3600, "certificate has expired"),
        (-60, 60, "www.example.com", -600, "certificate is not yet valid"),
        (-60, 60, "www.example.com", -30, ""),
    ],
    ids=["good", "expired", "not-yet", "other-name", "clock-ahead", "clock-behind", "within-the-backdate"],
)
async def test_openssl_accepts_or_says_why_not(
    peers: Peers, begin: float, end: float, name: str, at: float | None, error: str
) -> None:
    port = await peers.start(replying(OK), peers.papers.server(name, begin=begin, end=end))
    prober = Prober("www.example.com", peers.papers.trust, port, "127.0.0.1")
    probe = await prober.look(lambda: 7.0, None if at is None else time.time() + at)
    assert (probe.at, probe.error, probe.ok) == (7.0, error, not error)
    if probe.ok:
        assert probe.not_after == pytest.approx(time.time() + end, abs=2)
        assert len(probe.serial) == 32


async def test_a_refused_connection_is_an_error(papers: Papers) -> None:
    probe = await Prober("www.example.com", papers.trust, 9, "127.0.0.1").look(lambda: 0.0)
    assert probe.error == "connection refused"


@pytest.mark.parametrize("output", [b"", b"nonsense\n", b"\xff\xfe", b"Verify return code: 0 (ok)"])
def test_output_without_a_certificate_is_no_success(output: bytes) -> None:
    assert not read(0.0, 0, output).ok


async def test_each_of_the_three_paths_gets_requests(peers: Peers) -> None:
    clock = time.monotonic
    port = await peers.start(replying(OK), peers.papers.server())
    ways = Paths("www.example.com", peers.papers.trust, clock, port, "127.0.0.1")
    await asyncio.to_thread(ways.start)
    began = clock()
    await asyncio.sleep(1.2)  # time for two requests on each path, half a second apart
    await asyncio.to_thread(ways.stop)
    assert {t.path for t in ways.tried} == set(PATHS)
    assert not [t.error for t in ways.tried if t.error]
    assert all(0.4 < ways.exposure(path, began) < 1.3 for path in PATHS)


def test_exposure_lasts_until_the_last_answer(papers: Papers) -> None:
    ways = Paths("www.example.com", papers.trust, lambda: 0.0)
    ways.tried += [Tried(at, POOLED, "") for at in (9.0, 10.5, 12.0)] + [Tried(13.0, POOLED, "reset")]
    ways.tried += [Tried(10.5, NEW, "certificate has expired"), Tried(20.0, RESUMED, "")]
    assert ways.exposure(POOLED, 10.0) == 2.0
    assert ways.exposure(NEW, 10.0) == 0.0
    assert ways.exposure(RESUMED, 10.0, 15.0) == 0.0
