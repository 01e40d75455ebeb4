"""Clients that keep a connection open, stay silent for a while, and request again (scenario `keepalive-race`)."""

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
#: Seconds without a response after which a request is lost.
TIMEOUT = 10.0

#: answered: on the open connection; raced: lost, because the server was closing; closed: the server had closed before;
#: retired: the client had closed before.
Outcome = Literal["answered", "raced", "closed", "retired"]


@dataclass(slots=True)
class Gap:
    """One silence between a response and the next request, and how it ended; seconds."""

    #: Silence as drawn from the arm's distribution.
    drawn: float
    #: Actual silence, until the request was sent or the connection ended.
    silence: float
    outcome: Outcome
    #: From sending the request until its loss was noticed.
    noticed: float = math.nan
    #: Latency of the request, retries over a new connection included; NaN if it was never answered.
    answer: float = math.nan

    @property
    def intended(self) -> float:
        """Seconds of silence after which the request was sent, or would have been if the connection had not ended."""
        return self.drawn if self.outcome == "closed" else self.silence


@dataclass(slots=True)
class Arm:
    """Clients with the same distribution of silences and the same idle timeout."""

    name: str
    #: Seconds of idleness after which the client closes; infinite: never.
    idle: float = math.inf
    gaps: list[Gap] = field(default_factory=list)
    #: Requests that failed on a new connection, by cause: none should.
    failed: Counter[str] = field(default_factory=Counter)

    def ended(self, *outcomes: Outcome) -> list[Gap]:
        """Return the gaps with one of these outcomes."""
        return [gap for gap in self.gaps if gap.outcome in outcomes]

    def share(self, *outcomes: Outcome) -> Estimate:
        """Return the share of gaps with one of these outcomes."""
        return Estimate.share(len(self.ended(*outcomes)), len(self.gaps))


class Clients:
    """Clients of one edge; all times are seconds since the start."""

    def __init__(self, address: str, timeout_s: float, rtt: float, seconds: float) -> None:
        """Set the environment of all clients.

        Args:
            address: IPv4 address of the edge.
            timeout_s: seconds after which the server closes an idle connection.
            rtt: round-trip time in seconds.
            seconds: how long requests are sent.
        """
        self._address, self._timeout, self._rtt = address, timeout_s, rtt
        #: No gap begins later, so that every gap ends within the run: cutting gaps off would lose the long ones.
        self._last = seconds - timeout_s - 4 * rtt
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    async def run(self, arm: Arm, silences: Iterator[float], rng: random.Random) -> None:
        """Run one client: request, stay silent, request again; over a new connection whenever the old one is gone."""
        await asyncio.sleep(rng.uniform(0, min(2.0, self._timeout)))  # so that clients do not act in step
        retried: Gap | None = None
        while retried is not None or self.now() < self._last:
            kept = KeptConnection(self.now, self._address)
            since = self.now()
            error = await kept.ask()
            if retried is not None:
                if not error:  # the time until a lost race was noticed is part of the latency
                    lost = retried.noticed if retried.outcome == "raced" else 0.0
                    retried.answer = kept.answered - since + lost
                retried = None
            if error:
                arm.failed[error] += 1
                await asyncio.sleep(self._rtt)  # do not flood a broken edge
                continue
            while retried is None and self.now() < self._last:
                gap = await self._gap(arm, kept, next(silences))
                arm.gaps.append(gap)
                retried = gap if gap.outcome != "answered" else None
            kept.close()

    async def _gap(self, arm: Arm, kept: "KeptConnection", drawn: float) -> Gap:
        """Stay silent for *drawn* seconds, or until client or server closes; then request."""
        since = kept.answered
        # Idleness counts from the request: a response that took long started the server's timer before it reached us.
        retire = kept.asked + self._rtt + arm.idle
        if await kept.closed_within(min(since + drawn, retire)):
            return Gap(drawn, self.now() - since, "closed")
        if self.now() >= retire:  # checked just before use, as a pool does: we may be late
            return Gap(drawn, self.now() - since, "retired")
        sent = self.now()
        error = await kept.ask()
        if error:
            return Gap(drawn, sent - since, "raced", noticed=self.now() - sent)
        return Gap(drawn, sent - since, "answered", answer=kept.answered - sent)


class KeptConnection:
    """A connection to the edge that is kept open; one request at a time."""

    def __init__(self, now: Callable[[], float], address: str, port: int = PORT) -> None:
        self._now, self._to = now, (address, port)
        self._text = Target(HOST, port, "/whoami", None, "http", address).head(close=False)
        self._connection: Connection | None = None
        self._gone = asyncio.Event()
        self._result: asyncio.Future[str] | None = None
        #: Seconds of the last request and of its complete response.
        self.asked = self.answered = 0.0

    async def ask(self) -> str:
        """Send a request, on a new connection the first time; return why it was lost, or an empty text."""
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
        """Wait until *until*; return True, and early, if the server closes."""
        try:
            await asyncio.wait_for(self._gone.wait(), max(0.0, until - self._now()))
        except TimeoutError:
            return self._gone.is_set()
        return True

    def close(self) -> None:
        """Close, unless the server already has."""
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
