"""Polling of all hosts in the lab: /health, /metrics, and admin requests that depend on the host's role."""

import asyncio
import json
import math
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import aiohttp

from console.hosts import Host
from console.prometheus import ExpositionError, Scrape, parse
from console.state import State
from console.track import Sample
from telemetry import log

#: Timeout for one request, in seconds.  The console's links have no delay, so the timeout only has to allow for a
#: busy machine.  It is short enough for a round to end before the next one starts.
TIMEOUT = 1.5
#: Maximum response size in bytes; /metrics of an edge is about 20 kB.
MAX_BODY = 1 << 20

logger = log.get("console.poll")


class _ResponseError(Exception):
    """The host sent an invalid or unexpected response."""


def connector() -> aiohttp.TCPConnector:
    """Return a connector whose connections leave no TIME_WAIT sockets on either side.

    The admin port closes first, so every poll would leave a socket in TIME_WAIT for a minute and distort the TIME_WAIT
    count that the console displays.  With an SO_LINGER time of 0, the console's close sends a reset, which removes the
    polled host's socket from FIN_WAIT_2 (RFC 9293 section 3.10.7.4).  The response has been read by then.
    """

    def open_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return opened

    return aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=open_socket)


class Poller:
    """Polls all hosts every *interval* seconds and passes the results to the state."""

    def __init__(
        self,
        state: State,
        token_file: Path | None,
        interval: float,
        *,
        on_round: Callable[[], None] = lambda: None,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state, self.token_file, self.interval = state, token_file, interval
        #: Callbacks: `on_round` after each round of polls, `on_failure` with the reason if a round failed.
        self.on_round, self.on_failure = on_round, on_failure
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Poll in rounds until the task is cancelled."""
        async with aiohttp.ClientSession(
            connector=connector(), timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        ) as session:
            self._session = session
            while True:
                began = time.monotonic()
                try:
                    await self.round()
                except Exception as error:  # an error in one round must not stop the polling
                    logger.error("round_failed", error=repr(error))
                    self.on_failure(repr(error))
                pause = max(0.05, self.interval - (time.monotonic() - began))
                await asyncio.sleep(pause)  # waits for the next round

    async def round(self) -> None:
        """Poll every host once, concurrently."""
        token = self._token()
        samples = await asyncio.gather(*(self._ask(host, token) for host in self.state.hosts.hosts))
        for sample in samples:
            self.state.observe(sample)
        self.on_round()

    async def _ask(self, host: Host, token: str) -> Sample:
        at = time.time()
        try:
            health = _object(await self._get(host, "/health"), "/health")
            scrape = _scrape(await self._get(host, "/metrics"))
        except (aiohttp.ClientError, OSError, _ResponseError) as error:
            return Sample(host.name, at, error=plainly(error))
        admin: dict[str, Any] = {}
        refused = ""
        for path in self.state.admin_paths(host):
            try:
                admin[path] = _object(await self._get(host, path, token), path)
            except (aiohttp.ClientError, OSError, _ResponseError) as error:
                # The host responded to /health, so it is running.  If an admin request fails, the page shows older
                # data.
                refused = f"{path}: {plainly(error)}"
                logger.debug("admin_request_failed", host=host.name, path=path, error=refused)
        return Sample(host.name, at, None, health, scrape, admin, refused)

    async def _get(self, host: Host, path: str, token: str = "") -> bytes:
        assert self._session is not None  # noqa: S101 - `run` sets the session before it calls this method
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.get(host.url + path, headers=headers, allow_redirects=False) as response:
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _ResponseError(f"expected at most {MAX_BODY} bytes from {path}")
            # /health has status 503 if a health check fails.
            if response.status != 200 and not (path == "/health" and response.status == 503):
                raise _ResponseError(_reason(response.status, body))
            return body

    def _token(self) -> str:
        if self.token_file is None:
            return ""
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            logger.debug("token_not_readable", file=str(self.token_file), error=str(error))
            return ""


def plainly(error: Exception) -> str:
    """Return a user-readable reason why a request to a host failed."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.errno:
        # asyncio replaces the message with "Connect call failed (address)", so get the reason from errno.
        reason = os.strerror(error.errno)
        return reason[:1].lower() + reason[1:]
    return str(error) or type(error).__name__


def _reason(status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        message = body[:80].decode(errors="replace")
    return f"it answered {status}: {message}"


def _object(body: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(body, parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError):
        raise _ResponseError(f"expected JSON from {path}, got {body[:40]!r}") from None
    if not isinstance(answer, dict):
        raise _ResponseError(f"expected a JSON object from {path}, got {type(answer).__name__}")
    return answer


def _no_json(constant: str) -> NoReturn:
    # Reject NaN and Infinity: they are not valid JSON, and browsers cannot parse them.
    raise ValueError(constant)


def _finite(digits: str) -> float:
    # JSON numbers have no upper limit, and Python converts those that exceed the float range to infinity.
    number = float(digits)
    return number if math.isfinite(number) else _no_json(digits)


def _scrape(body: bytes) -> Scrape:
    try:
        return parse(body.decode())
    except (ExpositionError, UnicodeDecodeError) as error:
        raise _ResponseError(f"expected Prometheus text from /metrics, got {error}") from None
