"""Admin port: a small HTTP/1.1 server on asyncio streams for /metrics, /health and /admin/….

The server handles one request per connection, with a body of up to 1 MiB and without TLS.  It listens only inside the
lab's network, and requires a bearer token for /admin.  It is not intended as a web server for users.
"""

import asyncio
import hmac
import inspect
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from telemetry import log
from wireformat.http1 import HttpError, encode_head, parse_request_head

#: Maximum size of a request body in bytes, enough for a zone file or a trace.
MAX_BODY = 1 << 20
MAX_HEADER = 16 << 10
#: Timeout in seconds for reading a whole request; clients are on the same machine.
READ_TIMEOUT = 10.0
#: Event loop iterations after which every accepted connection has a running task that `close` can cancel.
ACCEPT_ITERATIONS = 6

logger = log.get("telemetry.admin")


class AdminError(Exception):
    """An error response with HTTP status *status*; *message* describes the expected and the actual input."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Request:
    """One admin request."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    #: Values of the placeholders in the route's path, keyed by name.
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Parse the request body as JSON; return an empty object if the body is empty.

        Raises:
            AdminError: 400, the body is not valid JSON.
        """
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AdminError(400, f"expected a JSON body: {error}") from None
        except RecursionError:
            raise AdminError(400, "expected a JSON body, got one that is nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body is not JSON, or whose status differs from the default."""

    body: bytes
    content_type: str = "application/octet-stream"
    status: int = 200


Handler = Callable[[Request], Any]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    handler: Handler


class AdminServer:
    """HTTP server with the routes of one service.  Only paths below ``/admin`` require the token."""

    def __init__(self) -> None:
        self._routes: list[_Route] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.token_file: Path | None = None

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Register *handler* for *method* and *path*; the path may have placeholders, as in ``/admin/links/{a}/{b}``.

        The handler may be a coroutine function.  It returns a JSON-serialisable value or a `Response`.
        """
        pattern = re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", re.escape(path).replace("\\{", "{").replace("\\}", "}"))
        self._routes.append(_Route(method, re.compile(pattern), handler))

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Start listening and return the actual address and port.

        Raises:
            OSError: the port is already in use.
        """
        self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_HEADER)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def serve(self, listening: socket.socket) -> None:
        """Serve on *listening*, a listening TCP or Unix socket."""
        start = asyncio.start_unix_server if listening.family == socket.AF_UNIX else asyncio.start_server
        self._server = await start(self._accept, sock=listening, limit=MAX_HEADER)

    async def close(self) -> None:
        """Stop listening and cancel requests in progress."""
        if self._server:
            for _ in range(ACCEPT_ITERATIONS):
                await asyncio.sleep(0)  # lets the event loop run one iteration
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next iteration of the event loop

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            response = await self._respond(reader)
            reason = HTTPStatus(response.status).phrase
            fields = [
                (b"Content-Type", response.content_type.encode()),
                (b"Content-Length", b"%d" % len(response.body)),
                (b"Cache-Control", b"no-store"),
                (b"Connection", b"close"),
            ]
            head = encode_head(f"HTTP/1.1 {response.status} {reason}".encode(), fields)
            writer.write(head + response.body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return  # the client has closed the connection
        except asyncio.CancelledError:
            return  # raised by `close`; do not re-raise, because asyncio streams of Python 3.11 would log a traceback
        finally:
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader) -> Response:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                request = await _read(reader)
        except TimeoutError:
            return _error(408, f"expected a whole request within {READ_TIMEOUT:g} s")
        except AdminError as error:
            return _error(error.status, error.message)
        try:
            return await self.dispatch(request)
        except AdminError as error:
            return _error(error.status, error.message)
        except Exception as error:  # a bug in one handler must not stop the service
            logger.error("admin_failed", method=request.method, path=request.path, error=repr(error))
            return _error(500, f"{type(error).__name__}: {error}")

    async def dispatch(self, request: Request) -> Response:
        """Return the response of the route's handler.

        Raises:
            AdminError: there is no such route, the token is missing, or the handler refuses the request.
        """
        if request.path.startswith("/admin"):
            self._authorise(request)
        allowed = []
        for route in self._routes:
            match = route.pattern.fullmatch(request.path)
            if match is None:
                continue
            if route.method != request.method:
                allowed.append(route.method)
                continue
            params = {key: unquote(value) for key, value in match.groupdict().items()}
            result = route.handler(
                Request(request.method, request.path, request.query, params, request.headers, request.body)
            )
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, Response):
                return result
            return Response(json.dumps(result, default=str).encode() + b"\n", "application/json")
        if allowed:
            raise AdminError(
                405, f"expected {' or '.join(sorted(set(allowed)))} on {request.path}, got {request.method}"
            )
        raise AdminError(404, f"there is nothing at {request.path}")

    def _authorise(self, request: Request) -> None:
        if self.token_file is None:
            raise AdminError(403, "the admin API is disabled: the service was started without --token-file")
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise AdminError(503, f"the admin token cannot be read: {error}") from None
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not token or not hmac.compare_digest(given.encode(), token.encode()):
            raise AdminError(401, "expected the header 'Authorization: Bearer TOKEN' with the lab's admin token")


async def _read(reader: asyncio.StreamReader) -> Request:
    try:
        head = parse_request_head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.LimitOverrunError:
        raise AdminError(431, f"expected headers of at most {MAX_HEADER} bytes") from None
    except HttpError as error:
        raise AdminError(400, str(error)) from None
    length = head.fields.get("content-length", "0")
    if not length.isdecimal() or "transfer-encoding" in head.fields:
        raise AdminError(400, "expected a body with Content-Length")
    if int(length) > MAX_BODY:
        raise AdminError(413, f"expected a body of at most {MAX_BODY} bytes, got {length}")
    body = await reader.readexactly(int(length))
    parts = urlsplit(head.target)
    return Request(head.method, parts.path, dict(parse_qsl(parts.query)), {}, head.fields, body)


def _error(status: int, message: str) -> Response:
    return Response(json.dumps({"error": message}).encode() + b"\n", "application/json", status)
