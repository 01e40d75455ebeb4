"""Clients that keep an address for the TTL, for longer or for ever, or keep a connection open (scenario `ttl`).

Class `Client` decides when to query and to connect, given the current time; `Crowd` sends the requests.  Requests use
plain HTTP, because only the identity of the responding server matters.
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

#: Seconds after which a request counts as lost.
TIMEOUT = 5.0
PORT = 80
#: Request path.  The response contains the origin's name, which identifies the edge.
PATH = "/whoami"


@dataclass(frozen=True, slots=True)
class Habit:
    """How long one kind of client keeps a resolved address and an open connection."""

    name: str
    #: Minimum seconds for which the client keeps an answer, regardless of the TTL; 0 if it honours the TTL, infinite if
    #: it never queries again.
    answer_s: float = 0.0
    #: Seconds for which the client keeps a connection; 0 if it opens a new one for each request.
    connection_s: float = 0.0

    @property
    def hold(self) -> float:
        """Hold time in seconds, as in `theory.ttl.old_share`: the longer of `answer_s` and `connection_s`."""
        return max(self.answer_s, self.connection_s)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that received a response."""

    #: Time at which the client decided where to connect, on the event loop's clock in seconds.
    at: float
    #: Index of the client in its crowd.
    client: int
    #: Host name of the origin that sent the response.
    origin: str
    #: Whether the request opened a new connection.
    opened: bool


class Client:
    """State of one client: the resolved address, and the times until which it keeps address and connection."""

    def __init__(self, habit: Habit, shortened: float = 1.0) -> None:
        """Create a client without an address or a connection.

        Args:
            habit: how long the client keeps addresses and connections.
            shortened: factor between 0 and 1 that shortens only the first hold; with random factors, holds have random
                ages, as if the clients had run for a long time.
        """
        self.habit = habit
        self.address: str | None = None
        self._until = 0.0
        self._connected_until = 0.0
        self._shortened = shortened

    def __repr__(self) -> str:
        return f"<Client {self.habit.name!r} address={self.address} until={self._until:.3f}>"

    def may_reuse(self, now: float) -> bool:
        """Return whether the client's open connection may be used again."""
        return now < self._connected_until

    def knows(self, now: float) -> str | None:
        """Return the cached address; None if the client has to query the resolver."""
        return self.address if now < self._until else None

    def learn(self, address: str, ttl_s: float, now: float) -> None:
        """Store a resolved address, and keep it for the TTL or the habit's minimum, whichever is longer."""
        self.address = address
        self._until = now + max(ttl_s, self._share(self.habit.answer_s))

    def connected(self, now: float) -> None:
        """Record that a connection was opened, and keep it for the habit's time."""
        self._connected_until = now + self._share(self.habit.connection_s)

    def _share(self, hold: float) -> float:
        if not hold or math.isinf(hold):
            return hold
        share, self._shortened = self._shortened, 1.0
        return hold * share


class Crowd:
    """Clients with the same habit; each has its own name and sends requests as its own Poisson process."""

    def __init__(
        self, habit: Habit, names: Sequence[str], rate: float, rng: random.Random, resolver: tuple[str, int]
    ) -> None:
        """Create the crowd; `run` starts its clients.

        Args:
            habit: habit of all clients.
            names: one name for each client.
            rate: mean requests per second of each client (a Poisson process).
            rng: random generator for request times and initial ages.
            resolver: address and port of the resolver.
        """
        self.habit, self.names, self.rate, self._rng, self._resolver = habit, names, rate, rng, resolver
        self.answered: list[Answered] = []
        #: Error messages of lost requests.
        self.lost: list[str] = []

    def __repr__(self) -> str:
        counts = f"clients={len(self.names)} answered={len(self.answered)} lost={len(self.lost)}"
        return f"<Crowd {self.habit.name!r} {counts}>"

    async def run(self, over: float) -> None:
        """Start the clients one after the other over *over* seconds, and run them until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(self.names):
                group.create_task(self._live(number, name, over * number / len(self.names)))

    async def _live(self, number: int, name: str, begins: float) -> None:
        rng, loop = self._rng, asyncio.get_running_loop()
        # Start in the stationary state: with this probability, the client already has an answer or connection of random
        # age.
        held = 1.0 if math.isinf(self.habit.hold) else ttl.hit_rate(self.rate, self.habit.hold)
        client, connection = Client(self.habit, rng.random()), _Connection(name)
        due = loop.time() + begins + (0.0 if rng.random() < held else rng.expovariate(self.rate))
        try:
            while True:
                await asyncio.sleep(due - loop.time())  # wait until the next request is due
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
            # A new stub has no cache, so that only the habit determines how long an answer is kept.
            answer = await AsyncStub([self._resolver]).resolve(name)
            known = answer.rdata[0]
            client.learn(known, answer.ttl_s, asyncio.get_running_loop().time())
        return known


class _Connection:
    """HTTP/1.1 connection to one host; it can be opened again to another address."""

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
        """Send a request and return the origin's name; unless *keep*, the server closes the connection."""
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
            with suppress(TimeoutError):  # wait until the server closes, so that TIME-WAIT is on the server
                async with asyncio.timeout(1):
                    await self._reader.read(1)
            self.close()
        return str(body["origin"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
