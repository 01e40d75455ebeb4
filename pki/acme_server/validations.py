"""Validation queue and its worker tasks; a failed write of a validation's result is retried until it succeeds."""

import asyncio
import contextlib
from collections.abc import Sequence

from acme_server import problems, validation
from acme_server.fair_queue import FairQueue
from acme_server.group_commit import GroupCommit
from acme_server.orders import Orders, key_authorization
from acme_server.problems import Problem
from acme_server.redirects import Ports
from authority import Account, Authorization, Issuer, StoreError
from stub import AsyncStub
from telemetry import Telemetry, log

logger = log.get("acme_server")

#: Maximum number of validations in progress, in total and per account.  Each validation uses one connection.
MAX_AT_ONCE, MAX_PER_ACCOUNT = 64, 32
#: Maximum number of waiting validations per account.
MAX_WAITING = 1000
#: Maximum time that the response to a poll is delayed while the validation is in progress, in seconds.
HOLD = 0.5
#: Interval between attempts to store the result of a validation, in seconds.
STORE_RETRY = 0.5


class Validations:
    """Runs validations, with a fair share for each account."""

    def __init__(
        self,
        telemetry: Telemetry,
        orders: Orders,
        commits: GroupCommit,
        stubs: Sequence[AsyncStub],
        issuer: Issuer,
        ports: Ports,
        caa: str | None,
    ) -> None:
        """Declare the metrics and the fault ``validation_fails``.

        Args:
            telemetry: clock, faults and metrics of the service.
            orders: records the results.
            commits: writes the results to disk.
            stubs: one stub resolver for each network perspective; a validation must succeed through all of them.
            issuer: CA whose name constraints limit the hosts to which http-01 requests may be redirected.
            ports: ports of web servers and name servers.
            caa: the CA's name in CAA records; None disables the CAA check.
        """
        self._telemetry, self._orders, self._commits, self._stubs = telemetry, orders, commits, stubs
        self._issuer, self._ports, self._caa = issuer, ports, caa
        self._queue: FairQueue[tuple[Authorization, Account]] = FairQueue(MAX_AT_ONCE, MAX_PER_ACCOUNT, MAX_WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Event for each running validation, keyed by the authorization's id; set when that validation has ended.
        self._ends: dict[str, asyncio.Event] = {}
        self._outcomes = telemetry.metrics.counter(
            "firstbyte_acme_validations_total", "Validations by outcome", "outcome"
        )
        waiting = telemetry.metrics.gauge("firstbyte_acme_validations_waiting", "Validations in the queue")
        telemetry.metrics.before_render(lambda: waiting.set(len(self._queue)))
        telemetry.faults.declare("validation_fails", "Let validations fail")

    def __repr__(self) -> str:
        return f"<Validations {self._queue!r}>"

    def resume(self) -> int:
        """Begin the validations that were in progress when the server last stopped; return their number.

        This is necessary because clients request a validation only once, and then poll for its result (RFC 8555
        section 8.2).
        """
        unfinished = self._orders.unfinished(self._telemetry.clock.time())
        for authorization, account in unfinished:
            self._queue.put(account.id, (authorization, account))
        self._start()
        return len(unfinished)

    def begin(self, authorization: Authorization, account: Account, method: str) -> Authorization:
        """Set the status of *authorization* to processing, and enqueue its validation with challenge type *method*.

        Raises:
            Problem: the account has too many validations in the queue.
            StoreError: the store cannot be read; no validation is queued.
        """
        if self._queue.full(account.id):
            raise problems.rate_limited(f"{MAX_WAITING} validations of this account wait", retry_after=1)
        begun = self._orders.processing(authorization, method)
        if begun.status == "processing":
            self._ends[begun.id] = asyncio.Event()
            self._queue.put(account.id, (begun, account))
            self._start()
        return begun

    async def ended(self, authorization: Authorization) -> None:
        """Wait until the validation of *authorization* has ended, for at most `HOLD` seconds.

        The server delays responses to polls with this method, so that clients receive the result earlier and with fewer
        requests.
        """
        if (end := self._ends.get(authorization.id)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), HOLD)

    async def close(self) -> None:
        """Cancel the validations in progress; the next server that uses this store resumes them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        while (taken := self._queue.take()) is not None:
            account_id, (authorization, account) = taken
            task = asyncio.create_task(self._run(authorization, account))
            self._tasks.add(task)
            task.add_done_callback(lambda done, account_id=account_id: self._done(done, account_id))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def _done(self, task: asyncio.Task[None], account_id: str) -> None:
        self._tasks.discard(task)
        self._queue.done(account_id)
        if not task.cancelled():
            self._start()

    async def _run(self, authorization: Authorization, account: Account) -> None:
        problem: Problem | None = None
        try:
            await self._validate(authorization, account)
        except Problem as found:
            problem = found
        except Exception as error:  # report any other failure to the client, which can retry
            logger.error("validation_failed", name=authorization.name, error=repr(error))
            problem = problems.server_internal("validation failed in the server")
        while True:
            try:
                settled = self._orders.settle(authorization, problem, self._telemetry.clock.time())
                await self._commits.durable()
                break
            except StoreError as error:
                logger.error("validation_not_stored", name=authorization.name, error=str(error))
                await asyncio.sleep(STORE_RETRY)  # wait before the next attempt; the client keeps polling
        if (end := self._ends.pop(authorization.id, None)) is not None:
            end.set()
        self._outcomes.inc(outcome="valid" if problem is None else problem.kind)
        reason = problem.detail if problem else ""
        logger.info("validated", name=authorization.name, status=settled.status, reason=reason)

    async def _validate(self, authorization: Authorization, account: Account) -> None:
        if self._telemetry.faults.any_on and self._telemetry.faults.hit("validation_fails"):
            raise problems.connection("the fault validation_fails is on")
        expected = key_authorization(authorization.token, account)
        results = await asyncio.gather(
            *(self._through(stub, authorization, expected) for stub in self._stubs), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _through(self, stub: AsyncStub, authorization: Authorization, expected: str) -> None:
        """Validate *authorization* from the network perspective of *stub*; raise `Problem` if that fails."""
        name = authorization.name
        if authorization.method == "dns-01":
            await validation.validate_dns01(stub, name.removeprefix("*."), expected, self._ports.dns)
        else:
            token = authorization.token
            await validation.validate_http01(stub, self._issuer, name, token, expected, self._ports)
        if self._caa is not None:
            await validation.check_caa(stub, name, self._caa)
