"""Resources of known cost: size, delay, CPU time, slow transfers, server-sent events and a WebSocket echo."""

import asyncio
import hashlib
import itertools
import json
import random
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from aiohttp import WSCloseCode, WSMsgType, web

from origin.conditions import ETag, Validators
from origin.problems import Problem
from origin.ranges import ByteRange
from origin.representations import CHUNK, Representation, send

#: Maximum response size that ``/bytes/N`` accepts, in bytes.
MAX_BYTES = 1 << 30
#: Maximum delay that a request may ask for, in milliseconds.
MAX_DELAY = 60_000
#: Maximum CPU time of one request in milliseconds, and maximum number of requests waiting for the CPU thread.
MAX_CPU, CPU_WAITING = 1_000, 8
#: Minimum and maximum rate of a slow transfer in bytes per second, and maximum duration in seconds.
RATES, MAX_SLOW = (1, 10 << 20), 120.0
#: Maximum number of events in one stream.
MAX_EVENTS = 1_000
#: Maximum size of a WebSocket message in bytes.
MAX_MESSAGE = 1 << 20
#: Interval between two steps of a slow transfer, in seconds.
_STEP = 0.05
_PATTERN = bytes(range(256)) * (CHUNK // 256 + 1)


class Measuring:
    """Handlers for resources of known cost; requests share only the CPU thread and the random generator for delays."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._burner = ThreadPoolExecutor(1, "cpu")
        self._burning = 0
        self._stopping = asyncio.Event()
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Add the resources below *prefix*."""
        for path, handler in (
            ("bytes/{size}", self.bytes),
            ("delay/{ms}", self.delay),
            ("delay/exp/{ms}", self.exponential),
            ("cpu/{ms}", self.cpu),
            ("slow-write/{rate}/{size}", self.slow_write),
            ("events", self.events),
        ):
            router.add_get(f"{prefix}/{path}", handler)
        router.add_get(f"{prefix}/echo", self.echo, allow_head=False)
        router.add_post(f"{prefix}/slow-read/{{rate}}", self.slow_read)

    async def stop(self, _: web.Application) -> None:
        """End event streams and WebSockets, which otherwise stay open until their clients close them."""
        self._stopping.set()
        for each in set(self._sockets):
            await each.close(code=WSCloseCode.GOING_AWAY)
        self._burner.shutdown(wait=False, cancel_futures=True)

    async def bytes(self, request: web.Request) -> web.StreamResponse:
        """Send a body of the requested size, or ranges of it; byte i is i mod 256."""
        size = number(request, "size", MAX_BYTES)
        what = Representation(size, "application/octet-stream", Validators(ETag(f'"bytes-{size}"')), _pattern)
        return await send(request, what)

    async def delay(self, request: web.Request) -> web.Response:
        """Respond after a delay."""
        return await _after(number(request, "ms", MAX_DELAY) / 1000)

    async def exponential(self, request: web.Request) -> web.Response:
        """Respond after an exponentially distributed delay."""
        mean = number(request, "ms", MAX_DELAY) / 1000
        return await _after(min(self._rng.expovariate(1 / mean), MAX_DELAY / 1000) if mean else 0.0)

    async def cpu(self, request: web.Request) -> web.Response:
        """Use CPU time in a separate thread, for one request at a time; requests to other paths are not delayed.

        Raises:
            Problem: 503, too many requests are waiting.
        """
        asked = number(request, "ms", MAX_CPU)
        if self._burning >= CPU_WAITING:
            raise Problem(503, f"{CPU_WAITING} requests wait for CPU time: retry later", retry_after="1")
        self._burning += 1
        began = time.perf_counter()
        try:
            burned = await asyncio.get_running_loop().run_in_executor(self._burner, _burn, asked / 1000)
        finally:
            self._burning -= 1
        took = (time.perf_counter() - began) * 1000
        return web.json_response({"asked_ms": asked, "burned_ms": round(burned * 1000, 3), "took_ms": round(took, 3)})

    async def slow_read(self, request: web.Request) -> web.Response:
        """Read the request body at the given rate, so that TCP flow control slows the client down."""
        rate, began, read = _rate(request), time.perf_counter(), 0
        while chunk := await request.content.read(max(1, int(rate * _STEP))):
            read += len(chunk)
            elapsed = time.perf_counter() - began
            if elapsed > MAX_SLOW:
                raise Problem(413, f"expected a body that takes at most {MAX_SLOW:g} s at {rate} bytes/s")
            await asyncio.sleep(max(0.0, read / rate - elapsed))  # sleeps to keep the rate that the client requested
        return web.json_response({"read": read, "took_ms": round((time.perf_counter() - began) * 1000, 3)})

    async def slow_write(self, request: web.Request) -> web.StreamResponse:
        """Send a body of the given size at the given rate."""
        rate, size = _rate(request), number(request, "size", MAX_BYTES)
        if size > rate * MAX_SLOW:
            raise Problem(400, f"expected a body that takes at most {MAX_SLOW:g} s, got {size / rate:.0f} s")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        began, sent, step = time.perf_counter(), 0, max(1, int(rate * _STEP))
        while request.method == "GET" and sent < size:
            for chunk in _pattern(ByteRange(sent, min(sent + step, size) - 1)):
                await response.write(chunk)
                sent += len(chunk)
            pause = max(0.0, sent / rate - (time.perf_counter() - began))
            await asyncio.sleep(pause)  # keeps the rate that the client requested
        return response

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send server-sent events (HTML Living Standard, section 9.2), continuing after Last-Event-ID."""
        count = _query(request, "count", 10, MAX_EVENTS)
        interval = _query(request, "interval", 1_000, MAX_DELAY) / 1000
        last = request.headers.get("Last-Event-ID", "")
        first = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 10 else 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        for event in range(first, count + 1):
            data = json.dumps({"event": event, "of": count, "time": round(time.time(), 3)})
            await response.write(f"id: {event}\ndata: {data}\n\n".encode())
            if event < count:
                try:
                    await asyncio.wait_for(self._stopping.wait(), interval)
                    break
                except TimeoutError:
                    continue
        return response

    async def echo(self, request: web.Request) -> web.StreamResponse:
        """Send each WebSocket message back (RFC 6455)."""
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE + 1, compress=False)
        try:
            if not socket.can_prepare(request):
                raise Problem(426, "expected a WebSocket handshake (RFC 6455 section 4.1)", upgrade="websocket")
            await socket.prepare(request)
        except UnicodeEncodeError:  # aiohttp fails to build its error message if a header field is not UTF-8
            raise Problem(400, "expected the fields of a WebSocket handshake in UTF-8") from None
        self._sockets.add(socket)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


def number(request: web.Request, name: str, maximum: int) -> int:
    """Return the path parameter *name* as a number from 0 to *maximum*.

    Raises:
        Problem: 400, the parameter is not a number in that range.
    """
    return _parsed(request.match_info[name], name, 0, maximum)


def _query(request: web.Request, name: str, default: int, maximum: int) -> int:
    return _parsed(request.query.get(name, str(default)), name, 0, maximum)


def _rate(request: web.Request) -> int:
    return _parsed(request.match_info["rate"], "rate", *RATES)


def _parsed(text: str, name: str, minimum: int, maximum: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not minimum <= int(text) <= maximum:
        raise Problem(400, f"expected a number from {minimum} to {maximum} as {name}, got {text[:40]!r}")
    return int(text)


def _pattern(part: ByteRange) -> Iterator[bytes]:
    """Yield the range *part* of the byte pattern in which byte i is i mod 256."""
    for at in itertools.count(part.first, CHUNK):
        if at > part.last:
            return
        phase = at % 256
        yield _PATTERN[phase : phase + min(CHUNK, part.last + 1 - at)]


async def _after(seconds: float) -> web.Response:
    began = time.perf_counter()
    await asyncio.sleep(seconds)  # delay requested by the client
    waited = (time.perf_counter() - began) * 1000
    return web.json_response({"asked_ms": round(seconds * 1000, 3), "waited_ms": round(waited, 3)})


def _burn(seconds: float) -> float:
    """Use *seconds* of CPU time in this thread without holding the GIL; return the CPU time used."""
    began, block = time.thread_time(), bytes(CHUNK)
    while time.thread_time() - began < seconds:
        hashlib.sha256(block)
    return time.thread_time() - began
