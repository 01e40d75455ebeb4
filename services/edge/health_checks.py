"""Active health checks: asks one origin at intervals, on a connection that is kept from one check to the next.

Keeping it means that a check costs no handshake, and that the number of opened connections says what requests cost.
"""

import asyncio
from collections.abc import Awaitable, Callable

from edge.errors import UpstreamError
from edge.heads import ResponseHead
from edge.routes import HealthCheck
from edge.targets import Target
from edge.upstream import Timing, Upstream

#: Function that opens a connection to a target within a time-out in seconds, or raises `UpstreamError`.
Opener = Callable[[Target, float], Awaitable[tuple[Upstream, Timing]]]


class HealthChecker:
    """Checks one target until `run` is cancelled."""

    def __init__(self, target: Target, check: HealthCheck, opener: Opener, report: Callable[[str], None]) -> None:
        """Create a checker; *report* receives each result: the reason of a failure, or an empty string."""
        self._target, self._check, self._opener, self._report = target, check, opener, report
        self._upstream: Upstream | None = None
        #: Whether the connection in use must not be kept.
        self._retired = False

    async def run(self) -> None:
        """Check at the interval."""
        try:
            while True:
                self._report(await self._ask())
                await asyncio.sleep(self._check.interval)  # between two checks
        finally:
            self.retire()

    def retire(self) -> None:
        """Open a new connection for the next check, because the client certificate has changed."""
        self._retired = True
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None

    async def _ask(self) -> str:
        """Send one request; return the reason of a failure, or an empty string."""
        check = self._check
        try:
            async with asyncio.timeout(check.timeout):
                upstream, self._upstream = self._upstream, None
                if upstream is not None and upstream.alive:
                    answer = await self._answer(upstream)
                    if not answer.lost:
                        return answer.reason
                upstream, _ = await self._opener(self._target, check.timeout)
                return (await self._answer(upstream)).reason
        except UpstreamError as error:
            return error.reason
        except TimeoutError:
            return f"no answer within {check.timeout:g} s"

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
        #: Whether the connection was lost before the response, as it may be when the origin closes an idle connection.
        self.lost = False
        self.reusable = False

    def response_begins(
        self, head: ResponseHead, payload: bytes, *, bodiless: bool, whole: bool  # noqa: ARG002 - as in `Receiver`
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
