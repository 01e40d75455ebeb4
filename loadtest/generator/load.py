"""An open-loop HTTPS load: requests begin when the schedule says, whether or not earlier ones are done.

Half of them open a connection of their own, half use one that is kept alive.  Every chain is verified.  Latency is
counted from the intended start, so that a stall of the server is not hidden by a client that waits
(coordinated omission); the lag of our own sending is kept beside it, as a validity gate.
"""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools
from cryptography import x509

from generator.histogram import Histogram
from stub import AsyncStub, StubError

#: Seconds after which a request counts as lost.
TIMEOUT = 5.0
#: Connections kept alive at most: more than rate x latency ever needs.
KEPT = 64


class LoadError(Exception):
    """A request that was lost, and why: one word for counting."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked."""

    host: str
    port: int
    path: str
    trust: Path


@dataclass(slots=True)
class Request:
    """One request: when it should have begun, began and ended (seconds on the load's clock), and how."""

    intended: float
    kind: str
    sent: float = 0.0
    done: float = 0.0
    #: Empty when it went well.
    error: str = ""
    #: Serial of the certificate that the server showed.
    serial: str = ""

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the end of the response."""
        return self.done - self.intended


class _Reply(asyncio.Protocol):
    """One connection; one response at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.serial = ""
        self._waiting: asyncio.Future[int] | None = None
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True)
        self.serial = f"{x509.load_der_x509_certificate(der).serial_number:x}" if der else ""

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(LoadError("malformed"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._end(LoadError("reset" if exc else "closed"))

    def on_message_complete(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._parser.get_status_code())

    def _end(self, error: LoadError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    @property
    def alive(self) -> bool:
        """Whether a request may be sent."""
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, request: bytes) -> int:
        """Send *request*; return the status."""
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiting

    @property
    def reusable(self) -> bool:
        """Whether the server keeps the connection open."""
        return self.alive and bool(self._parser.should_keep_alive())


class Load:
    """Sends requests at a constant rate until told to stop."""

    def __init__(
        self,
        target: Target,
        rate: float,
        *,
        kinds: tuple[str, ...] = ("fresh", "kept"),
        on_done: Callable[[Request], None] | None = None,
    ) -> None:
        """Make one.

        Args:
            target: what is asked.
            rate: requests per second.
            kinds: of connection, in turn: fresh, kept.
            on_done: called with each request when it ended.
        """
        self.target, self.rate, self.kinds = target, rate, kinds
        self.requests: list[Request] = []
        self.began = time.monotonic()
        self._on_done = on_done
        self._stub = AsyncStub()
        self._context = ssl.create_default_context(cafile=target.trust)
        self._kept: deque[_Reply] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._text = f"GET {target.path} HTTP/1.1\r\nHost: {target.host}\r\nUser-Agent: firstbyte-load\r\n".encode(
            "ascii"
        )

    def now(self) -> float:
        """Return seconds since `run` began."""
        return time.monotonic() - self.began

    async def run(self, stop: asyncio.Event) -> None:
        """Send until *stop* is set; then wait for what is under way."""
        self.began = time.monotonic()
        number = 0
        while not stop.is_set():
            intended = number / self.rate
            delay = intended - self.now()
            if delay > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), delay)
                    break
            request = Request(intended, self.kinds[number % len(self.kinds)])
            self.requests.append(request)
            task = asyncio.create_task(self._one(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT + 1)
        for reply in self._kept:
            if reply.alive:
                reply.transport.close()
        await asyncio.sleep(0)

    def lag(self) -> Histogram:
        """Return how late requests began."""
        return Histogram(max(0.0, each.sent - each.intended) for each in self.requests if each.sent)

    async def _one(self, request: Request) -> None:
        request.sent = self.now()
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await (self._kept_request(request) if request.kind == "kept" else self._fresh_request(request))
            if status != 200:
                request.error = f"status {status}"
        except TimeoutError:
            request.error = "timeout"
        except LoadError as error:
            request.error = str(error)
        except ssl.SSLCertVerificationError as error:
            request.error = f"certificate: {error.verify_message}"
        except ssl.SSLError as error:
            request.error = f"tls: {error.reason}"
        except StubError as error:
            request.error = f"name: {type(error).__name__}"
        except OSError as error:
            request.error = f"connect: {error.strerror or type(error).__name__}"
        request.done = self.now()
        if self._on_done is not None:
            self._on_done(request)

    async def _open(self) -> _Reply:
        answer = await self._stub.resolve(self.target.host)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            _Reply, answer.rdata[0], self.target.port, ssl=self._context, server_hostname=self.target.host
        )
        return protocol

    async def _fresh_request(self, request: Request) -> int:
        reply = await self._open()
        request.serial = reply.serial
        try:
            return await reply.ask(self._text + b"Connection: close\r\n\r\n")
        finally:
            if reply.transport is not None:
                reply.transport.close()

    async def _kept_request(self, request: Request) -> int:
        reply = None
        while self._kept and reply is None:
            candidate = self._kept.pop()
            reply = candidate if candidate.alive else None
        if reply is None:
            reply = await self._open()
        request.serial = reply.serial
        try:
            status = await reply.ask(self._text + b"\r\n")
        except BaseException:
            if reply.transport is not None:
                reply.transport.abort()
            raise
        if reply.reusable and len(self._kept) < KEPT:
            self._kept.append(reply)
        elif reply.transport is not None:
            reply.transport.close()
        return status
