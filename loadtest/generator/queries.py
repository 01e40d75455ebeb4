"""An open-loop DNS load over one UDP socket: many names, queries told apart by their id (RFC 1035 section 4.1.1).

Every reply to a query of ours is an answer, whatever its rcode: NXDOMAIN costs a server as much as an address.  Only
silence is a loss.  No retries, no TCP: this measures a server, `stub` resolves names.
"""

import asyncio
import random
import socket
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import dnslib

from generator.histogram import Histogram
from generator.pace import Pacer, Starvation
from generator.request import LoadError
from generator.schedule import Schedule, constant
from stub.message import query

#: Seconds after which a query counts as lost.
TIMEOUT = 2.0
#: Octets that the kernel may hold for us; more than the usual `rmem_max` is cut to it.
RECEIVE_BUFFER = 4 << 20
#: Ids that may be in use at once: half of them, so that a free one is found at once.
MAX_UNDER_WAY = 32768
#: Replies read in one go; more would hold sending up.
BATCH = 64


class Queries:
    """Sends queries by a schedule until it ends or is told to stop."""

    def __init__(
        self,
        server: tuple[str, int],
        names: Sequence[str],
        rate: float | Schedule,
        *,
        rdtype: str = "A",
        timeout: float = TIMEOUT,
        seed: int = 0,
    ) -> None:
        """Make one.

        Args:
            server: IPv4 address and port.
            names: asked in an order drawn from *seed*.
            rate: queries per second, evenly spaced and without end; or a schedule.
            rdtype: type of every question.
            timeout: seconds after which a query is lost.
            seed: of names and ids.

        Raises:
            LoadError: no name, or one that is none.
        """
        if not names:
            raise LoadError("expected at least one name, got none")
        self.schedule = rate if isinstance(rate, Schedule) else Schedule(constant(rate))
        self.server, self.timeout = server, timeout
        try:
            # Without the id, which each query gets of its own.
            self._questions = [query(0, name, rdtype)[2:] for name in names]
        except ValueError as error:
            raise LoadError(str(error)) from None
        self.pacer = Pacer(self.schedule.times(), self._begin)
        #: Of replies: from the intended start, and from the actual one.
        self.latency, self.service_time = Histogram(), Histogram()
        self.rcodes: Counter[str] = Counter()
        #: Losses by cause: timeout, send: …, too many under way.
        self.errors: Counter[str] = Counter()
        #: Datagrams that answered no query of ours, or answered late.
        self.stray = 0
        self._random = random.Random(seed)
        #: By id: question without id, intended and actual start.
        self._under_way: dict[int, tuple[bytes, float, float]] = {}
        self._expiries: deque[tuple[float, int, bytes]] = deque()
        self._sock: Any = None  # a socket while running

    def __repr__(self) -> str:
        return f"<Queries sent={self.pacer.sent} answered={self.answered} lost={self.lost}>"

    @property
    def answered(self) -> int:
        """How many queries had a reply."""
        return self.rcodes.total()

    @property
    def lost(self) -> int:
        """How many had none."""
        return self.errors.total()

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Judge whether the generator was the bottleneck."""
        return self.pacer.starvation(rtt)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send until *stop* is set or the schedule ends; then wait for the last replies."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.connect(self.server)
            self._sock = sock
            loop.add_reader(sock, self._when_readable)
            try:
                await self.pacer.run(stop or asyncio.Event())
                while self._under_way:
                    await asyncio.sleep(0.01)  # answers come, or run out of time
                    self._expire(self.pacer.now())
            finally:
                loop.remove_reader(sock)
                self._sock = None

    def _begin(self, intended: float) -> None:
        now = self.pacer.now()
        self._expire(now)
        if len(self._under_way) >= MAX_UNDER_WAY:
            self.errors["too many under way"] += 1
            return
        ident = self._random.getrandbits(16)
        while ident in self._under_way:
            ident = self._random.getrandbits(16)
        question = self._questions[int(self._random.random() * len(self._questions))]
        try:
            self._sock.send(ident.to_bytes(2, "big") + question)
        except OSError as error:
            self.errors[f"send: {error.strerror}"] += 1
            return
        self._under_way[ident] = (question, intended, now)
        self._expiries.append((now + self.timeout, ident, question))

    def _when_readable(self) -> None:
        for _ in range(BATCH):
            try:
                reply = self._sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody listens; the query expires like any other
                continue
            self._receive(reply, self.pacer.now())

    def _receive(self, reply: bytes, now: float) -> None:
        known = self._under_way.get(int.from_bytes(reply[:2], "big"))
        # The question comes back as it was sent (it ends 11 octets before the end of the query, where EDNS begins).
        if known is None or len(reply) < 12 or reply[2] & 0x80 == 0 or not _same_question(known[0], reply):
            self.stray += 1
            return
        del self._under_way[int.from_bytes(reply[:2], "big")]
        _, intended, sent = known
        self.latency.add(now - intended)
        self.service_time.add(now - sent)
        self.rcodes[_rcode(reply[3] & 0x0F)] += 1

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            deadline, ident, _ = self._expiries.popleft()
            known = self._under_way.get(ident)
            if known is not None and known[2] + self.timeout <= deadline:
                del self._under_way[ident]
                self.errors["timeout"] += 1


_RCODES = {number: str(name) for number, name in dnslib.RCODE.forward.items()}


def _rcode(number: int) -> str:
    return _RCODES.get(number, f"RCODE{number}")


def _same_question(question: bytes, reply: bytes) -> bool:
    asked = question[10:-11]
    came = reply[12 : 12 + len(asked)]
    return came == asked or came.lower() == asked.lower()
