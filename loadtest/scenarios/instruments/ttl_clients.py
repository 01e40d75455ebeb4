"""Clients that keep an address for the TTL, longer, for ever, or by keeping a connection (scenario `ttl`).

`Client` decides and is passed the time; `Crowd` makes real requests.  Requests use plain HTTP, since only the server
that answers is of interest.
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
#: The response names the origin, and so tells which edge was asked.
PATH = "/whoami"


@dataclass(frozen=True, slots=True)
class Habit:
    """How one kind of client treats the addresses that it has learned."""

    name: str
    #: Least seconds for which it keeps an answer, regardless of the TTL; 0: honours the TTL; infinite: never asks
    #: again.
    answer_s: float = 0.0
    #: Seconds for which it keeps a connection; 0: a new one for each request.
    connection_s: float = 0.0

    @property
    def hold(self) -> float:
        """Seconds for which it does not ask, in addition to the TTL."""
        return max(self.answer_s, self.connection_s)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that was answered."""

    #: When the client decided where to connect, on the event loop's clock.
    at: float
    #: Number of the client in its crowd.
    client: int
    #: Name of the origin.
    origin: str
    #: Whether the request opened a connection.
    opened: bool


class Client:
    """What one client has learned, and until when it keeps it."""

    def __init__(self, habit: Habit, shortened: float = 1.0) -> None:
        """Make a client that knows nothing.

        Args:
            habit: of its kind.
            shortened: share of its first hold that remains: clients that have run for long have holds of every age.
        """
        self.habit = habit
        self.address: str | None = None
        self._until = 0.0
        self._connected_until = 0.0
        self._shortened = shortened

    def __repr__(self) -> str:
        return f"<Client {self.habit.name!r} address={self.address} until={self._until:.3f}>"

    def may_reuse(self, now: float) -> bool:
        """Return whether its open connection may be used again."""
        return now < self._connected_until

    def knows(self, now: float) -> str | None:
        """Return the address that it keeps; None if it has to ask."""
        return self.address if now < self._until else None

    def learn(self, address: str, ttl_s: float, now: float) -> None:
        """Take an answer."""
        self.address = address
        self._until = now + max(ttl_s, self._share(self.habit.answer_s))

    def connected(self, now: float) -> None:
        """Take a connection that was just opened."""
        self._connected_until = now + self._share(self.habit.connection_s)

    def _share(self, hold: float) -> float:
        if not hold or math.isinf(hold):
            return hold
        share, self._shortened = self._shortened, 1.0
        return hold * share


class Crowd:
    """Clients of one habit, each with its own name and requests at random times."""

    def __init__(
        self, habit: Habit, names: Sequence[str], rate: float, rng: random.Random, resolver: tuple[str, int]
    ) -> None:
        """Make a crowd.

        Args:
            habit: of all clients.
            names: one for each client.
            rate: Poisson requests per second of each client.
            rng: draws their times.
            resolver: address and port of the resolver.
        """
        self.habit, self.names, self.rate, self._rng, self._resolver = habit, names, rate, rng, resolver
        self.answered: list[Answered] = []
        #: Why each lost request was lost.
        self.lost: list[str] = []

    def __repr__(self) -> str:
        counts = f"clients={len(self.names)} answered={len(self.answered)} lost={len(self.lost)}"
        return f"<Crowd {self.habit.name!r} {counts}>"

    async def run(self, over: float) -> None:
        """Start one client after the other within *over* seconds; run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(self.names):
                group.create_task(self._live(number, name, over * number / len(self.names)))

    async def _live(self, number: int, name: str, begins: float) -> None:
        rng, loop = self._rng, asyncio.get_running_loop()
        # A client in its stationary state: it holds something with this probability, of any age.
        held = 1.0 if math.isinf(self.habit.hold) else ttl.hit_rate(self.rate, self.habit.hold)
        client, connection = Client(self.habit, rng.random()), _Connection(name)
        due = loop.time() + begins + (0.0 if rng.random() < held else rng.expovariate(self.rate))
        try:
            while True:
                await asyncio.sleep(due - loop.time())
                due += rng.expovariate(self.rate)
                await self._request(number, name, client, connection)
        finally:
            connection.close()

    async def _request(self, number: int, name: str, client: Client, connection: "_Connection") -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        try:
            async with asyncio.timeout(TIMEOUT):
                reused = connection.is_open and client.may_reuse(at)
                if not reused:
                    connection.close()
                    await connection.open(await self._address(name, client, at))
                    client.connected(loop.time())
                origin = await connection.ask(keep=client.habit.connection_s > 0)
        except (OSError, StubError, TimeoutError, ValueError) as error:
            connection.close()
            self.lost.append(f"{type(error).__name__}: {error}"[:120])
            return
        self.answered.append(Answered(at, number, origin, not reused))

    async def _address(self, name: str, client: Client, at: float) -> str:
        known = client.knows(at)
        if known is None:
            # A new stub has no cache: what is kept, and for how long, follows from the habit.
            answer = await AsyncStub([self._resolver]).resolve(name)
            known = answer.rdata[0]
            client.learn(known, answer.ttl_s, asyncio.get_running_loop().time())
        return known


class _Connection:
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
        """Return the name of the origin that answered; unless *keep*, the server closes afterwards."""
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
            with suppress(TimeoutError):  # the side that closes first keeps the port: wait for the server
                async with asyncio.timeout(1):
                    await self._reader.read(1)
            self.close()
        return str(body["origin"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
