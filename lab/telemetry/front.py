"""Admin port of a service with several worker processes: forwards requests to the workers and merges their responses.

Requests for host-wide values go to one worker; requests that change a worker's state go to all of them.  The workers
check the bearer token.
"""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from telemetry import merging
from telemetry.admin import AdminError, AdminServer, Request, Response
from wireformat.http1 import encode_head

#: Time-out for a worker's response, in seconds; a certificate order takes several seconds.
ANSWER_TIMEOUT = 60.0
#: Time-out for a worker's response to /metrics and /health, in seconds; both are computed quickly.
PROBE_TIMEOUT = 2.0
#: Paths that only the first worker serves, because kernel counters and their recorder belong to the whole host.
HOST_WIDE = ("/admin/kernel", "/admin/sockets", "/admin/recorder")

Merge = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Rules:
    """How admin requests are distributed to the workers, and how the workers' responses are merged.

    By default, a GET request goes to one worker, and any other request to all workers.
    """

    #: Path prefixes that only the first worker serves.
    first: tuple[str, ...] = ()
    #: Path prefixes whose requests go to all workers, each with the function that merges the JSON responses.
    merges: Mapping[str, Merge] = field(default_factory=dict)


class Front(AdminServer):
    """Admin server in front of the workers' admin servers."""

    def __init__(self, addresses: Sequence[str], board: Any, rules: Rules) -> None:
        """Create a front that does not listen yet.

        Args:
            addresses: address of each worker's Unix socket.
            board: for each worker, its process ID (0 while the worker is down) and its number of restarts.
            rules: how requests are distributed to the workers and their responses merged.
        """
        super().__init__()
        self._addresses, self._board = list(addresses), board
        self._first = (*HOST_WIDE, *rules.first)
        self._merges = {"/admin/faults": merging.faults, **rules.merges}

    async def dispatch(self, request: Request) -> Response:
        """Return the merged response of the workers.

        Raises:
            AdminError: a worker is down (503) or does not respond (502).
        """
        if request.path == "/metrics":
            return await self._metrics()
        if request.path == "/health":
            return await self._health()
        if _below(request.path, self._first):
            return await self._ask(0, request)
        merge = next((self._merges[prefix] for prefix in self._merges if _below(request.path, (prefix,))), None)
        if merge is None and request.method == "GET":
            return await self._ask(next((n for n in self._numbers if self._board[2 * n]), 0), request)
        answers = await asyncio.gather(*(self._ask(n, request) for n in self._numbers), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, AdminError):
                raise AdminError(answer.status, f"{answer.message}; other workers may have applied the request")
            if isinstance(answer, BaseException):
                raise answer
            if answer.status >= 300:
                return answer
        good = [answer for answer in answers if isinstance(answer, Response)]
        if merge is None:
            return good[0]
        return _json(merge([json.loads(answer.body) for answer in good]))

    @property
    def _numbers(self) -> range:
        return range(len(self._addresses))

    async def _metrics(self) -> Response:
        request = Request("GET", "/metrics", {"parts": "1"})
        answers = await asyncio.gather(*(self._probe(n, request) for n in self._numbers))
        pages = {n: json.loads(answer.body) for n, answer in enumerate(answers, 1) if isinstance(answer, Response)}
        up = "# HELP firstbyte_worker_up 1 while this worker process answers\n# TYPE firstbyte_worker_up gauge\n"
        up += "".join(f'firstbyte_worker_up{{worker="{n + 1}"}} {int(n + 1 in pages)}\n' for n in self._numbers)
        up += "# HELP firstbyte_worker_restarts_total Number of restarts of this worker process\n"
        up += "# TYPE firstbyte_worker_restarts_total counter\n"
        up += "".join(
            f'firstbyte_worker_restarts_total{{worker="{n + 1}"}} {self._board[2 * n + 1]}\n' for n in self._numbers
        )
        return Response((merging.metrics(pages) + up).encode(), "text/plain; version=0.0.4; charset=utf-8")

    async def _health(self) -> Response:
        answers = await asyncio.gather(*(self._probe(n, Request("GET", "/health")) for n in self._numbers))
        body = merging.health(
            {n: json.loads(each.body) if isinstance(each, Response) else each for n, each in enumerate(answers, 1)}
        )
        return _json(body, 200 if body["status"] == "ok" else 503)

    async def _probe(self, number: int, request: Request) -> Response | str:
        """Return the worker's response, or the reason for the failure."""
        try:
            return await self._ask(number, request, PROBE_TIMEOUT)
        except AdminError as error:
            return error.message

    async def _ask(self, number: int, request: Request, timeout: float = ANSWER_TIMEOUT) -> Response:
        """Return the response of the worker with the index *number*, which starts at 0.

        Raises:
            AdminError: the worker is down (503) or does not respond (502).
        """
        if not self._board[2 * number]:
            raise AdminError(503, f"worker {number + 1} has ended and will be restarted")
        query = f"?{urlencode(request.query)}" if request.query else ""
        fields = [(b"Host", b"worker"), (b"Content-Length", b"%d" % len(request.body))]
        if token := request.headers.get("authorization"):
            fields.append((b"Authorization", token.encode()))
        head = encode_head(f"{request.method} {request.path}{query} HTTP/1.1".encode(), fields)
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(self._addresses[number])
                try:
                    writer.write(head + request.body)
                    raw, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                finally:
                    writer.close()
            start, _, lines = raw.decode("latin-1").partition("\r\n")
            status = int(start.split(" ")[1])
        except TimeoutError:
            raise AdminError(502, f"worker {number + 1} has not answered within {timeout:g} s") from None
        except (OSError, IndexError, ValueError) as error:
            raise AdminError(502, f"worker {number + 1} has not answered: {error}") from None
        kind = next((line.partition(": ")[2] for line in lines.split("\r\n") if line.startswith("Content-Type")), "")
        return Response(body, kind, status)


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in prefixes)


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body).encode() + b"\n", "application/json", status)


def serve(listening: socket.socket, front: Front) -> int:
    """Serve *front* on *listening* until SIGTERM; return the exit code."""

    async def until_stopped() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        await front.serve(listening)
        await stop.wait()
        await front.close()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(until_stopped())
    return 0
