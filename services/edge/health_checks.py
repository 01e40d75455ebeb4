"""Active health checks: periodic requests to one origin over a persistent connection.

Reusing the connection avoids a handshake per check, and keeps checks out of the count of opened connections.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge.errors import UpstreamError
from edge.heads import ResponseHead
from edge.routes import HealthCheck
from edge.targets import Target
from edge.upstream import Timing, Upstream

#: Function that opens a connection to a target within a time-out in seconds, or raises `UpstreamError`.
Opener = Callable[[Target, float], Awaitable[tuple[Upstream, Timing]]]


class Report(Protocol):
    """Callback for the result of a health check."""

    def __call__(self, reason: str, /, *, timed_out: bool) -> None:
        """Handle a result: *reason* is why the check failed, or an empty string if the check passed."""


class HealthChecker:
    """Health checker of one target; checks until `run` is cancelled."""

    def __init__(self, target: Target, check: HealthCheck, opener: Opener, report: "Report") -> None:
        """Create a checker that calls *report* with each result."""
        self._target, self._check, self._opener, self._report = target, check, opener, report
        self._upstream: Upstream | None = None
        #: Whether `retire` was called while a health check was in progress.  The check then closes its connection when
        #: it ends.
        self._retired = False

    async def run(self) -> None:
        """Check the target periodically."""
        try:
            while True:
                reason, timed_out = await self._ask()
                self._report(reason, timed_out=timed_out)
                await asyncio.sleep(self._check.interval)  # interval between checks
        finally:
            self.retire()

    def retire(self) -> None:
        """Close the connection, so that the next check opens a new one with the current client certificate."""
        self._retired = True
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None

    async def _ask(self) -> tuple[str, bool]:
        """Send one request; return the reason for a failure (empty on success), and whether it was a time-out."""
        check = self._check
        try:
            async with asyncio.timeout(check.timeout):
                upstream, self._upstream = self._upstream, None
                if upstream is not None and upstream.alive:
                    answer = await self._answer(upstream)
                    if not answer.lost:
                        return answer.reason, False
                upstream, _ = await self._opener(self._target, check.timeout)
                return (await self._answer(upstream)).reason, False
        except UpstreamError as error:
            return error.reason, error.status == 504
        except TimeoutError:
            return f"no answer within {check.timeout:g} s", True

    async def _answer(self, upstream: Upstream) -> "_Answer":
        answer, self._retired = _Answer(), False
        head = b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (self._check.path.encode(), self._target.authority)
        try:
            upstream.send_request(head, answer)
            await answer.ended.wait()
        finally:
            if answer.reusable and not self._retired:
                self._upstream = upstream
            else:
                upstream.abort()
        return answer


class _Answer:
    """Receiver of one response."""

    head_only = False

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        #: Why the check failed; empty if it passed.
        self.reason = ""
        #: Whether the connection was lost before the response, possibly because of the origin's keep-alive time-out.
        self.lost = False
        self.reusable = False

    def response_begins(
        self, head: ResponseHead, payload: bytes, *, bodiless: bool, whole: bool  # noqa: ARG002 - signature of `Receiver`
    ) -> None:  # fmt: skip
        if not 200 <= head.status < 400:
            self.reason = f"expected 2xx or 3xx, got {head.status}"

    def response_end(self, *, reusable: bool) -> None:
        self.reusable = reusable
        self.ended.set()

    def response_lost(self, reason: str) -> None:
        self.reason, self.lost = reason, True
        self.ended.set()

    def switched(self, head: ResponseHead, data: bytes) -> None:  # noqa: ARG002 - signature of `Receiver`
        self.reason = "expected 2xx or 3xx, got 101"
        self.ended.set()

    def response_interim(self, head: ResponseHead) -> None: ...

    def response_body(self, payload: bytes) -> None: ...

    def tunnelled(self, data: bytes) -> None: ...

    def upstream_writable(self, *, writable: bool) -> None: ...
