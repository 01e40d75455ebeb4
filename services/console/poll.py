"""The shell towards the lab: asks every host for /health, /metrics and what its role offers, again and again."""

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
from console.state import Sample, State
from telemetry import log

#: Seconds for one request.  The farthest host is reached at once (links of the exchange cost nothing), so this is
#: patience with a busy machine, and short enough for a round to end before the next begins.
TIMEOUT = 1.5
#: Bytes of an answer; /metrics of an edge is some 20 kB.
MAX_BODY = 1 << 20

logger = log.get("console.poll")


class _AnswerError(Exception):
    """The host answered something unexpected."""


def connector() -> aiohttp.TCPConnector:
    """Return a connector whose connections leave no TIME_WAIT behind, neither here nor at the host asked.

    The admin port closes first, so each look would leave a socket in TIME_WAIT for a minute in the very count that it
    reads.  With SO_LINGER at 0 our close is a reset, which ends the host's socket in FIN_WAIT_2 (RFC 9293 section
    3.10.7.4); the answer has been read by then.
    """

    def open_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return opened

    return aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=open_socket)


class Poller:
    """Asks all hosts every *interval* seconds and tells the state what came of it."""

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
        #: Called after each round, and instead with a sentence when a round failed.
        self.on_round, self.on_failure = on_round, on_failure
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        async with aiohttp.ClientSession(
            connector=connector(), timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        ) as session:
            self._session = session
            while True:
                began = time.monotonic()
                try:
                    await self.round()
                except Exception as error:  # one host's odd answer must not blind the console to the others
                    logger.error("round_failed", error=repr(error))
                    self.on_failure(repr(error))
                await asyncio.sleep(max(0.05, self.interval - (time.monotonic() - began)))  # until the next round

    async def round(self) -> None:
        """Ask every host once."""
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
        except (aiohttp.ClientError, OSError, _AnswerError) as error:
            return Sample(host.name, at, error=plainly(error))
        admin: dict[str, Any] = {}
        refused = ""
        for path in self.state.admin_paths(host):
            try:
                admin[path] = _object(await self._get(host, path, token), path)
            except (aiohttp.ClientError, OSError, _AnswerError) as error:
                # The host is up, it said so above; one admin request that fails leaves that part of the page as it was.
                refused = f"{path}: {plainly(error)}"
                logger.debug("admin_request_failed", host=host.name, path=path, error=refused)
        return Sample(host.name, at, None, health, scrape, admin, refused)

    async def _get(self, host: Host, path: str, token: str = "") -> bytes:
        assert self._session is not None  # noqa: S101 - `run` made it, and only `run` leads here
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.get(host.url + path, headers=headers, allow_redirects=False) as response:
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _AnswerError(f"expected at most {MAX_BODY} bytes from {path}")
            # /health says with 503 that a check fails; that is an answer.
            if response.status != 200 and not (path == "/health" and response.status == 503):
                raise _AnswerError(_reason(response.status, body))
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
    """Say in plain words why a host did not answer."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.errno:
        # asyncio words it "Connect call failed (address)"; the number says which failure it was.
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
        raise _AnswerError(f"expected JSON from {path}, got {body[:40]!r}") from None
    if not isinstance(answer, dict):
        raise _AnswerError(f"expected a JSON object from {path}, got {type(answer).__name__}")
    return answer


def _no_json(constant: str) -> NoReturn:
    # NaN and Infinity are Python's, not JSON's: a browser could not read them.
    raise ValueError(constant)


def _finite(digits: str) -> float:
    # JSON has no largest number, and Python makes infinity of what is too large.
    number = float(digits)
    return number if math.isfinite(number) else _no_json(digits)


def _scrape(body: bytes) -> Scrape:
    try:
        return parse(body.decode())
    except (ExpositionError, UnicodeDecodeError) as error:
        raise _AnswerError(f"expected Prometheus text from /metrics, got {error}") from None
