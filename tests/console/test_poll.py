"""Tests for polling of real admin ports and of misbehaving peers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from console import hosts
from console.poll import Poller, plainly
from console.state import State
from tests.console.lab import ScriptedLab


@asynccontextmanager
async def polling(state: State, token_file: Path | None) -> AsyncIterator[asyncio.Queue[str]]:
    """Poll continuously; yield a queue that receives "round" after each round, or the reason if the round failed."""
    results: asyncio.Queue[str] = asyncio.Queue()
    poller = Poller(
        state, token_file, 0.05, on_round=lambda: results.put_nowait("round"), on_failure=results.put_nowait
    )
    task = asyncio.create_task(poller.run())
    try:
        yield results
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def rounds(results: asyncio.Queue[str], count: int) -> None:
    async with asyncio.timeout(20):
        for _ in range(count):
            assert await results.get() == "round"


def declared(lab: ScriptedLab) -> hosts.Hosts:
    return hosts.load(lab.hosts_file())


async def test_every_host_gets_the_requests_of_its_role(lab: ScriptedLab) -> None:
    state = State(declared(lab), 0.0)
    async with polling(state, lab.token_file) as results:
        await rounds(results, 2)
    snapshot = state.snapshot(1e10)
    assert repr(state) == "<State ok=19>"
    assert len(snapshot["links"]) == 28
    assert [pool["host"] for pool in snapshot["pools"]] == ["edge", "edge-far"]
    assert [entry["host"] for entry in snapshot["certificates"]] == [
        "edge",
        "catalog-1",
        "catalog-2",
        "news",
        "edge-far",
        "catalog-3",
    ]
    assert snapshot["cache"]["size"] == 31


async def test_without_the_token_hosts_are_up_and_refusals_are_an_alarm(lab: ScriptedLab, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.token"
    wrong.write_text("wrong\n", encoding="ascii")
    for token_file in (wrong, tmp_path / "missing", None):
        state = State(declared(lab), 0.0)
        async with polling(state, token_file) as results:
            await rounds(results, 1)
        (alarm,) = state.snapshot(1e10)["alarms"]
        assert alarm["subject"] == "the console"
        assert "401" in alarm["why"] or "403" in alarm["why"]
        assert repr(state) == "<State ok=19>"


async def test_a_host_that_refuses_is_down_and_back_when_it_answers(lab: ScriptedLab) -> None:
    state = State(declared(lab), 0.0)
    async with polling(state, lab.token_file) as results:
        await rounds(results, 1)
        await lab["news"].stop()
        await rounds(results, 4)
        assert "down=1" in repr(state)
        (alarm,) = state.snapshot(time.time())["alarms"]
        assert (alarm["subject"], alarm["why"]) == ("news", "connection refused")
        await lab["news"].start()
        await rounds(results, 3)
    assert repr(state) == "<State ok=19>"


async def test_polling_leaves_no_socket_in_time_wait(lab: ScriptedLab) -> None:
    # Ignore sockets that were in TIME_WAIT before, left by connections of other programs.
    before = time_wait(lab)
    state = State(declared(lab), 0.0)
    async with polling(state, lab.token_file) as results:
        await rounds(results, 3)
    assert time_wait(lab) - before == set()


def time_wait(lab: ScriptedLab) -> set[tuple[str, str]]:
    """Return the (local, remote) addresses of the TIME_WAIT sockets on the hosts' admin ports."""
    ports = {host.port for host in lab.hosts.values()}
    waiting = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, status, *_ = line.split()
        if status == "06" and {int(local.split(":")[1], 16), int(remote.split(":")[1], 16)} & ports:
            waiting.add((local, remote))
    return waiting


REFUSED = "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\n" + '{"error": "nope"}'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("", "it closed the connection without an answer", id="closes"),
        pytest.param("SSH-2.0\r\n\r\n", "Bad status line", id="no-http"),
        pytest.param("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
                     "expected a JSON object from /health, got list", id="a-list"),
        pytest.param("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{", "expected JSON from /health", id="no-json"),
        pytest.param('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"a": NaN}', "expected JSON from /health", id="nan"),
        pytest.param('HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"a": 1e999}',
                     "expected JSON from /health", id="infinite"),
        pytest.param("HTTP/1.1 200 OK\r\n\r\n" + "[" * 100_000, "expected JSON from /health", id="deep"),
        pytest.param(REFUSED, "it answered 403: nope", id="403"),
        pytest.param("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
                     "Content-Length: 0\r\n\r\n", "it answered 302", id="redirect"),
        pytest.param("HTTP/1.1 200 OK\r\n\r\n" + "x" * (1 << 20) + "x", "expected at most 1048576 bytes", id="endless"),
    ],
)  # fmt: skip
async def test_an_invalid_response_is_the_reason_that_a_host_is_down(answer: str, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        host = hosts.Host("odd", "127.0.0.1", "odd.test", "near", "client", admin=f"127.0.0.1:{port}")
        state = State(hosts.Hosts({"near": "here"}, (host,)), 0.0)
        async with polling(state, None) as results:
            await rounds(results, 2)
    (alarm,) = state.snapshot(1e10)["alarms"]
    assert expected in alarm["why"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer within 1.5 s"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError(113, "x"), "no route to host"),
        (socket.gaierror(), "gaierror"),
    ],
)
def test_errors_are_described_in_plain_words(error: Exception, words: str) -> None:
    assert plainly(error) == words
