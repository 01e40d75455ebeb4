"""An open-loop DNS load over one UDP socket.

Replies are matched to queries by ID and question (RFC 1035 section 4.1.1).  A query with any reply counts as
answered, whatever the rcode, because an NXDOMAIN reply costs a server as much as an address; a query without a reply
is lost.  There are no retries and no TCP, since the purpose is to measure a server; use `stub` to resolve names.
"""

import asyncio
import random
import socket
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from dnsmessage import rcode_to_text
from generator.histogram import Histogram
from generator.pace import Pacer, Starvation
from generator.request import LoadError
from generator.schedule import Schedule, constant
from stub.message import query

#: Time after which a query counts as lost, in seconds.
TIMEOUT = 2.0
#: Requested size of the socket's receive buffer, in bytes; the kernel limits it to `rmem_max`.
RECEIVE_BUFFER = 4 << 20
#: Maximum number of queries in flight: half of all 65,536 IDs, so that a randomly chosen ID is usually free.
MAX_IN_FLIGHT = 32768
#: Maximum number of replies read before the event loop may send again.
BATCH = 64


class Queries:
    """Sends DNS queries by a schedule until the schedule ends or `run` is stopped."""

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
        """Prepare a load; `run` starts sending.

        Args:
            server: IPv4 address and port of the name server.
            names: names to query; each query uses a random one.
            rate: a schedule, or a constant number of queries per second, evenly spaced and without end.
            rdtype: record type of all queries.
            timeout: seconds after which a query counts as lost.
            seed: random seed for the choice of names and query IDs.

        Raises:
            LoadError: *names* is empty, or a name is malformed.
        """
        if not names:
            raise LoadError("expected at least one name, got none")
        self.schedule = rate if isinstance(rate, Schedule) else Schedule(constant(rate))
        self.server, self.timeout = server, timeout
        try:
            # The encoded queries without their first two bytes, which are the ID and differ in each query.
            self._questions = [query(0, name, rdtype)[2:] for name in names]
        except ValueError as error:
            raise LoadError(str(error)) from None
        self.pacer = Pacer(self.schedule.times(), self._begin)
        #: Latency of answered queries, measured from the intended start and from the actual start, respectively.
        self.latency, self.service_time = Histogram(), Histogram()
        self.rcodes: Counter[str] = Counter()
        #: Number of lost queries, keyed by cause: "timeout", "send: …" or "too many in flight".
        self.errors: Counter[str] = Counter()
        #: Number of datagrams that match no query in flight, such as late replies.
        self.stray = 0
        self._random = random.Random(seed)
        #: Queries in flight by ID: (encoded query without its ID, intended start, actual start).
        self._in_flight: dict[int, tuple[bytes, float, float]] = {}
        self._expiries: deque[tuple[float, int, bytes]] = deque()
        self._sock: Any = None  # None unless `run` is active

    def __repr__(self) -> str:
        return f"<Queries sent={self.pacer.sent} answered={self.answered} lost={self.lost}>"

    @property
    def answered(self) -> int:
        """Number of queries that received a reply."""
        return self.rcodes.total()

    @property
    def lost(self) -> int:
        """Number of queries that were lost or could not be sent."""
        return self.errors.total()

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Return lag and CPU use of the load so far, with their limits; a longer *rtt* (seconds) allows more lag."""
        return self.pacer.starvation(rtt)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send queries until *stop* is set or the schedule ends; then wait until each has a reply or has timed out."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.connect(self.server)
            self._sock = sock
            loop.add_reader(sock, self._on_readable)
            try:
                await self.pacer.run(stop or asyncio.Event())
                while self._in_flight:
                    await asyncio.sleep(0.01)  # polling interval: wait until every query has a reply or has expired
                    self._expire(self.pacer.now())
            finally:
                loop.remove_reader(sock)
                self._sock = None

    def _begin(self, intended: float) -> None:
        now = self.pacer.now()
        self._expire(now)
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            self.errors["too many in flight"] += 1
            return
        ident = self._random.getrandbits(16)
        while ident in self._in_flight:
            ident = self._random.getrandbits(16)
        question = self._questions[int(self._random.random() * len(self._questions))]
        try:
            self._sock.send(ident.to_bytes(2, "big") + question)
        except OSError as error:
            self.errors[f"send: {error.strerror}"] += 1
            return
        self._in_flight[ident] = (question, intended, now)
        self._expiries.append((now + self.timeout, ident, question))

    def _on_readable(self) -> None:
        for _ in range(BATCH):
            try:
                reply = self._sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # for example, ICMP port unreachable; the query will time out
                continue
            self._receive(reply, self.pacer.now())

    def _receive(self, reply: bytes, now: float) -> None:
        known = self._in_flight.get(int.from_bytes(reply[:2], "big"))
        # A reply repeats the question; in the query, the question is followed only by the 11-byte EDNS record.
        if known is None or len(reply) < 12 or reply[2] & 0x80 == 0 or not _same_question(known[0], reply):
            self.stray += 1
            return
        del self._in_flight[int.from_bytes(reply[:2], "big")]
        _, intended, sent = known
        self.latency.add(now - intended)
        self.service_time.add(now - sent)
        self.rcodes[rcode_to_text(reply[3] & 0x0F)] += 1

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            deadline, ident, _ = self._expiries.popleft()
            known = self._in_flight.get(ident)
            if known is not None and known[2] + self.timeout <= deadline:
                del self._in_flight[ident]
                self.errors["timeout"] += 1


def _same_question(question: bytes, reply: bytes) -> bool:
    asked = question[10:-11]
    came = reply[12 : 12 + len(asked)]
    return came == asked or came.lower() == asked.lower()
