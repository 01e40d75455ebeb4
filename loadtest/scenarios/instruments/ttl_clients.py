"""Clients that hold on to an address: as the TTL says, longer, for ever, or by a connection that they keep.

`Client` decides, told the time; `Crowd` makes real requests of what it decided.  A request goes over plain HTTP: what
is counted here is where it arrives.
"""

import asyncio
import json
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from stub import AsyncStub, StubError
from theory import ttl
from wireformat.http1 import get
from wireformat.http1_reader import ResponseReader

#: Seconds after which a request is lost.
TIMEOUT = 5.0
PORT = 80
#: What the edge answers tells which origin, and so which edge, it came from.
PATH = "/whoami"


@dataclass(frozen=True, slots=True)
class Habit:
    """How a kind of client treats what it has learned."""

    name: str
    #: Seconds for which it keeps an answer at least, whatever the TTL; 0: honours the TTL; infinite: never asks again.
    answer_s: float = 0.0
    #: Seconds for which it keeps a connection; 0: a new one for each request.
    connection_s: float = 0.0

    @property
    def hold(self) -> float:
        """Seconds for which it does not ask, beyond what the TTL allows."""
        return max(self.answer_s, self.connection_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that was answered."""

    #: On the clock of the event loop, when the client decided where to go.
    at: float
    #: Which client of its crowd.
    client: int
    #: Who answered.
    origin: str
    #: Whether it opened a connection.
    opened: bool


class Client:
    """What one client has learned, and until when it holds on to it."""

    def __init__(self, habit: Habit, shortened: float = 1.0) -> None:
        """Make one.

        Args:
            habit: of its kind.
            shortened: share of its first hold that is still to come: clients that run for long have holds of every age.
        """
        self.habit = habit
        self.address: str | None = None
        self._until = 0.0
        self._connected_until = 0.0
        self._shortened = shortened

    def __repr__(self) -> str:
        return f"<Client {self.habit.name!r} address={self.address} until={self._until:.3f}>"

    def may_reuse(self, now: float) -> bool:
        """Return whether a connection that is open may be used again."""
        return now < self._connected_until

    def knows(self, now: float) -> str | None:
        """Return the address that it holds on to; None when it has to ask."""
        return self.address if now < self._until else None

    def learn(self, address: str, ttl_s: float, now: float) -> None:
        """Take an answer."""
        self.address = address
        self._until = now + max(ttl_s, self._share(self.habit.answer_s))

    def connected(self, now: float) -> None:
        """Take a connection that was opened."""
        self._connected_until = now + self._share(self.habit.connection_s)

    def _share(self, hold: float) -> float:
        if not hold or math.isinf(hold):
            return hold
        share, self._shortened = self._shortened, 1.0
        return hold * share


class Crowd:
    """Clients of one habit, each with a name of its own and requests at random times."""

    def __init__(
        self, habit: Habit, names: Sequence[str], rate: float, rng: random.Random, resolver: tuple[str, int]
    ) -> None:
        """Make one.

        Args:
            habit: of all of them.
            names: one for each client.
            rate: requests per second of each, Poisson.
            rng: draws their times.
            resolver: whom they ask.
        """
        self.habit, self.names, self.rate, self._rng, self._resolver = habit, names, rate, rng, resolver
        self.seen: list[Seen] = []
        #: Requests without an answer, by what went wrong.
        self.lost: list[str] = []

    def __repr__(self) -> str:
        return f"<Crowd {self.habit.name!r} clients={len(self.names)} seen={len(self.seen)} lost={len(self.lost)}>"

    async def run(self, over: float) -> None:
        """Begin one client after the other within *over* seconds; go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(self.names):
                group.create_task(self._live(number, name, over * number / len(self.names)))

    async def _live(self, number: int, name: str, begins: float) -> None:
        rng, loop = self._rng, asyncio.get_running_loop()
        # As a client that has run for long is found: holding something with its stationary probability, of any age.
        held = 1.0 if math.isinf(self.habit.hold) else ttl.hit_rate(self.rate, self.habit.hold)
        client, line = Client(self.habit, rng.random()), _Line(name)
        due = loop.time() + begins + (0.0 if rng.random() < held else rng.expovariate(self.rate))
        try:
            while True:
                await asyncio.sleep(due - loop.time())  # until the next arrival
                due += rng.expovariate(self.rate)
                await self._request(number, name, client, line)
        finally:
            line.close()

    async def _request(self, number: int, name: str, client: Client, line: "_Line") -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        try:
            async with asyncio.timeout(TIMEOUT):
                reused = line.is_open and client.may_reuse(at)
                if not reused:
                    line.close()
                    await line.open(await self._address(name, client, at))
                    client.connected(loop.time())
                origin = await line.ask(keep=client.habit.connection_s > 0)
        except (OSError, StubError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            line.close()
            self.lost.append(f"{type(error).__name__}: {error}"[:120])
            return
        self.seen.append(Seen(at, number, origin, not reused))

    async def _address(self, name: str, client: Client, at: float) -> str:
        known = client.knows(at)
        if known is None:
            # A stub without memory: what is remembered, and for how long, is the habit's to say.
            answer = await AsyncStub([self._resolver]).resolve(name)
            known = answer.rdata[0]
            client.learn(known, answer.ttl_s, asyncio.get_running_loop().time())
        return known


class _Line:
    """One HTTP/1.1 connection at a time."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None and self._reader is not None and not self._reader.at_eof()

    async def open(self, address: str) -> None:
        self._reader, self._writer = await asyncio.open_connection(address, PORT)

    async def ask(self, *, keep: bool) -> str:
        """Return the name of the origin that answered; whoever is not to *keep* the connection lets the server close it."""
        if self._reader is None or self._writer is None:
            raise ConnectionError("expected an open connection")
        self._writer.write(get(self._host, PATH, *([] if keep else ["Connection: close"])))
        pieces: list[bytes] = []
        response = ResponseReader(pieces.append)
        while not response.complete:
            if data := await self._reader.read(65536):
                response.feed(data)
            else:
                response.end()
        if response.status != 200:
            raise ValueError(f"expected status 200, got {response.status}")
        body = json.loads(b"".join(pieces))
        if not keep:
            with suppress(TimeoutError):  # the side that closes first keeps the port: let it be the server
                async with asyncio.timeout(1):
                    await self._reader.read(1)
            self.close()
        return str(body["origin"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
