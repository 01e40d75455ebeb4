"""Clients that keep a connection open and idle for a while, then send another request (scenario `keepalive-race`)."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from experiments import Estimate
from generator import Channel, Connection, Request, Source, Target

HOST, PORT = "www.example.com", 80
#: Seconds without a response after which a request counts as lost.
TIMEOUT = 10.0

#: Outcome of a gap:
#: answered: the request succeeded on the open connection;
#: raced: the request was lost because the server was closing the connection;
#: closed: the server closed the connection before the request was sent;
#: retired: the client closed the connection before the request was due.
Outcome = Literal["answered", "raced", "closed", "retired"]


@dataclass(slots=True)
class Gap:
    """One idle period between a response and the next request, and its outcome.  All times are seconds."""

    #: Intended idle period, drawn at random from the arm's distribution.
    drawn: float
    #: Actual idle period until the request was sent or the connection closed.
    silence: float
    outcome: Outcome
    #: Time from sending the request until its loss was detected.
    noticed: float = math.nan
    #: Latency of the request, including a retry on a new connection; NaN if there was no response.
    answer: float = math.nan

    @property
    def intended(self) -> float:
        """Idle time until the request was sent; if the server closed first, until the request was due."""
        return self.drawn if self.outcome == "closed" else self.silence


@dataclass(slots=True)
class Arm:
    """Clients with the same distribution of idle periods and the same idle time-out."""

    name: str
    #: Client's idle time-out in seconds; infinite if the client never closes first.
    idle: float = math.inf
    gaps: list[Gap] = field(default_factory=list)
    #: Requests that failed on a new connection, counted by cause; the scenario expects none.
    failed: Counter[str] = field(default_factory=Counter)

    def ended(self, *outcomes: Outcome) -> list[Gap]:
        """Return the gaps with one of the given outcomes."""
        return [gap for gap in self.gaps if gap.outcome in outcomes]

    def share(self, *outcomes: Outcome) -> Estimate:
        """Return the share of gaps with one of the given outcomes."""
        return Estimate.share(len(self.ended(*outcomes)), len(self.gaps))


class Clients:
    """Clients that send requests to one edge; all times are seconds since the start."""

    def __init__(self, address: str, timeout_s: float, rtt: float, seconds: float) -> None:
        """Set the server, timing and duration for all clients.

        Args:
            address: IPv4 address of the edge.
            timeout_s: server's idle time-out in seconds.
            rtt: round-trip time in seconds.
            seconds: duration for which requests are sent.
        """
        self._address, self._timeout, self._rtt = address, timeout_s, rtt
        #: Latest start of a gap, so that every gap ends within the run.  Otherwise, long gaps would be missing from the
        #: results.
        self._last = seconds - timeout_s - 4 * rtt
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    async def run(self, arm: Arm, silences: Iterator[float], rng: random.Random) -> None:
        """Run one client: send a request, stay idle, repeat; reconnect when the connection has ended."""
        await asyncio.sleep(rng.uniform(0, min(2.0, self._timeout)))  # start the clients at different times
        retried: Gap | None = None
        while retried is not None or self.now() < self._last:
            kept = KeptConnection(self.now, self._address)
            since = self.now()
            error = await kept.ask()
            if retried is not None:
                if not error:  # the latency includes the time until the loss was detected
                    lost = retried.noticed if retried.outcome == "raced" else 0.0
                    retried.answer = kept.answered - since + lost
                retried = None
            if error:
                arm.failed[error] += 1
                await asyncio.sleep(self._rtt)  # limit the retry rate if the edge is broken
                continue
            while retried is None and self.now() < self._last:
                gap = await self._gap(arm, kept, next(silences))
                arm.gaps.append(gap)
                retried = gap if gap.outcome != "answered" else None
            kept.close()

    async def _gap(self, arm: Arm, kept: "KeptConnection", drawn: float) -> Gap:
        """Stay idle for *drawn* seconds or until either end closes the connection; then send a request."""
        since = kept.answered
        # Idle time starts one round trip after the request: if the response is delayed on the path, the server's idle
        # timer starts before the response arrives here.
        retire = kept.asked + self._rtt + arm.idle
        if await kept.closed_within(min(since + drawn, retire)):
            return Gap(drawn, self.now() - since, "closed")
        if self.now() >= retire:  # check again before use, as a pool does, because this task may be late
            return Gap(drawn, self.now() - since, "retired")
        sent = self.now()
        error = await kept.ask()
        if error:
            return Gap(drawn, sent - since, "raced", noticed=self.now() - sent)
        return Gap(drawn, sent - since, "answered", answer=kept.answered - sent)


class KeptConnection:
    """Persistent connection to the edge that carries one request at a time."""

    def __init__(self, now: Callable[[], float], address: str, port: int = PORT) -> None:
        self._now, self._to = now, (address, port)
        self._text = Target(HOST, port, "/whoami", None, "http", address).head(close=False)
        self._connection: Connection | None = None
        self._gone = asyncio.Event()
        self._result: asyncio.Future[str] | None = None
        #: Times of the last request and of the end of its response, in seconds since the start.
        self.asked = self.answered = 0.0

    async def ask(self) -> str:
        """Connect if necessary and send a request; return the cause if the request was lost, otherwise ""."""
        self._result = asyncio.get_running_loop().create_future()
        now = self._now()
        request = Request(now, "pooled", now)
        if self._connection is None:
            self._connection = Connection(self._now, Channel(None, HOST), self._done, self._lost, self._ended)
            self._connection.open(request, self._text, self._to, Source())
        else:
            self._connection.ask(request, self._text)
        try:
            return await asyncio.wait_for(self._result, TIMEOUT)
        except TimeoutError:
            self.close()
            return "timeout"

    async def closed_within(self, until: float) -> bool:
        """Wait until the time *until*; return True as soon as the server closes the connection, otherwise False."""
        try:
            await asyncio.wait_for(self._gone.wait(), max(0.0, until - self._now()))
        except TimeoutError:
            return self._gone.is_set()
        return True

    def close(self) -> None:
        """Close the connection unless the server has closed it already."""
        if self._connection is not None:
            self._connection.leave("client")

    def _done(self, connection: Connection) -> None:
        request = connection.request
        if request is not None:
            self.asked = request.sent + (request.connect or 0.0)
        self.answered, connection.request = self._now(), None
        self._settle("")

    def _lost(self, _: Connection, cause: str) -> None:
        self._settle(cause)

    def _ended(self, _: Connection) -> None:
        self._gone.set()
        self._settle("closed")

    def _settle(self, outcome: str) -> None:
        if self._result is not None and not self._result.done():
            self._result.set_result(outcome)
