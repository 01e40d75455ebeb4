"""Fault injection tests: no request is lost while one of two origins is killed, paused, reset, moved in DNS, or slow.

A request is lost if its client does not get a complete 2xx response within five seconds.  The load is open-loop: 200
idempotent requests per second over keep-alive TLS connections, about twenty in flight.  Origins and name server run in
separate processes.  The edge has default settings, except that the route has a health check when the origin is paused:
without a health check, requests would wait for the time-out `response` before a retry.  A request whose response has
begun is never retried.
"""

import asyncio
import contextlib
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

import generator
from edge import Route, Target
from edge.proxy import Proxy
from edge.routes import HealthCheck
from edge.settings import Settings
from stub import AsyncStub
from telemetry import Telemetry
from tests.peers import NAME, Papers, papers
from tests.waiting import until

__all__ = ["papers"]

RATE, TIMEOUT = 200.0, 5.0
#: Duration of the load before and after the start of the fault, in seconds.
BEFORE, AFTER = 0.5, 1.5
OLD, NEW = "127.0.0.2", "127.0.0.3"
ZONE = """$ORIGIN origins.test.
$TTL 1
@ SOA ns hostmaster {serial} 60 60 60 1
@ NS ns
ns A 127.0.0.1
first A {address}
"""
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """TCP relay in front of an origin; can reset all connections or delay responses."""

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._writers: set[asyncio.StreamWriter] = set()
        #: Delay of each part of a response, in seconds.
        self.delay = 0.0
        #: Whether a connection is reset as soon as data arrives on it.
        self.resets = False

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen and yield the port; at the end, close the listener and all connections."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110 - polls: no event signals the end of the last connection
            await asyncio.sleep(0.01)  # interval between checks for remaining connections

    def reset_all(self) -> None:
        """Reset all open connections; afterwards, reset every new connection when data arrives on it."""
        self.resets = True
        for writer in self._writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, onward = await asyncio.open_connection(OLD, self._origin)
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(self._pipe(reader, onward, 0.0), self._pipe(upstream, writer, None))
        finally:
            self._writers -= {writer, onward}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float | None) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.resets:
                    self.reset_all()
                await asyncio.sleep(self.delay if delay is None else delay)  # injected delay
                writer.write(data)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Lab:
    """Two origins and a name server; each fault is injected into the first origin, or into its DNS record."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._zone, self._stack = folder / "zone", stack

    async def start(self) -> None:
        self._announce(OLD, 1)
        (self.first, port), (_, self.second), (self._names, self.dns) = await asyncio.gather(
            self._origin(OLD), self._origin("127.0.0.1"),
            self._process("nameserver", "--listen", "127.0.0.1:0", "--zone", f"origins.test.={self._zone}"),
        )  # fmt: skip
        self.relay = Relay(port)
        self.target = Target("first.origins.test", port, tls=False)
        self.relayed = Target("127.0.0.1", await self._stack.enter_async_context(self.relay.listening()), tls=False)

    async def _process(self, *argv: str) -> tuple[asyncio.subprocess.Process, int]:
        """Start ``python -m ARGV``; return the process and the port of its first listener."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        self._stack.push_async_callback(process.wait)
        self._stack.callback(_kill, process)
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 40)).decode()
        assert line.startswith("listening on"), line
        return process, int(line.split()[2].rpartition(":")[2])

    async def _origin(self, address: str, port: int = 0) -> tuple[asyncio.subprocess.Process, int]:
        return await self._process("origin", "--name", "test", "--kind", "catalog", "--plain", f"{address}:{port}")

    def _announce(self, address: str, serial: int) -> None:
        self._zone.write_text(ZONE.format(address=address, serial=serial))

    # --- faults of the first origin -----------------------------------------------------------------------------------

    async def kill(self) -> None:
        self.first.kill()

    async def pause(self) -> None:
        self.first.send_signal(signal.SIGSTOP)

    async def reset(self) -> None:
        self.relay.reset_all()

    async def slow(self) -> None:
        self.relay.delay = 1.0

    async def move(self) -> None:
        """Start an origin at a new address, publish that address in DNS, and kill the origin at the old address."""
        await self._origin(NEW, self.target.port)
        self._announce(NEW, 2)
        self._names.send_signal(signal.SIGHUP)
        self.first.kill()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def lost_during(
    fault: str, papers: Papers, folder: Path
) -> tuple[list[generator.Request], generator.Load, Proxy]:
    """Generate load, inject *fault* into the first origin, and return the lost requests, the load and the edge."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(90):
        lab = Lab(folder, stack)
        await lab.start()
        first = lab.relayed if fault in {"reset", "slow"} else lab.target
        # On a busy machine, a health check of the working origin may take several tenths of a second.
        check = HealthCheck("/whoami", 0.2, 1.0) if fault == "pause" else None
        route = Route("/", (first, Target("127.0.0.1", lab.second, tls=False)), health=check)
        proxy = Proxy(Telemetry("edge"), Settings((route,)), AsyncStub([("127.0.0.1", lab.dns)]), lambda: None)
        stack.push_async_callback(proxy.close)
        _, port = await proxy.listen(("127.0.0.1", 0), "https", context=papers.server())
        target = generator.Target(NAME, port, "/delay/100", papers.trust, address="127.0.0.1")
        load = generator.Load(target, RATE, kinds=["pooled"], timeout=TIMEOUT)
        stop = asyncio.Event()
        working = asyncio.create_task(load.run(stop))
        try:
            await asyncio.sleep(BEFORE)  # load before the fault
            await until(lambda: all(row["opened"] and row["reused"] for row in proxy._rows()), 20)
            await getattr(lab, fault)()
            await asyncio.sleep(AFTER)  # load during the fault
        finally:
            stop.set()
            await working
    return [each for each in load.requests if each.error or not 200 <= each.status < 300], load, proxy


@pytest.mark.parametrize("fault", ["kill", "pause", "reset", "move", "slow"])
def test_no_request_is_lost_while_another_origin_can_serve(papers: Papers, tmp_path: Path, fault: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lost, load, proxy = runner.run(lost_during(fault, papers, tmp_path))
    assert not lost
    assert len(load.requests) > 0.8 * RATE * (BEFORE + AFTER)
    first, second = proxy._rows()
    assert second["reused"] > first["reused"]
