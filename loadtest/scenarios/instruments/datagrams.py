"""Exchanges numbered datagrams: sends DNS queries with consecutive IDs, and records which responses arrive."""

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from stub.message import query

PORT = 53
#: Maximum number of queries in one exchange: the ID of a DNS message has 16 bits.
MOST = 1 << 16
#: The exchange ends when no response has arrived for this many seconds after the last query.
QUIET = 0.4


@dataclass(slots=True)
class Ledger:
    """Records the order in which the responses of an exchange arrive, by request number."""

    #: Number of queries sent; they are numbered from 0.
    sent: int
    arrived: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Number of queries without a response."""
        return self.sent - len(set(self.arrived))

    @property
    def repeated(self) -> int:
        """Number of responses that had arrived before."""
        return len(self.arrived) - len(set(self.arrived))

    @property
    def overtaken(self) -> int:
        """Number of responses that arrived after a response with a higher number, not counting repeated ones."""
        seen: set[int] = set()
        late, highest = 0, -1
        for number in self.arrived:
            late += number not in seen and number < highest
            seen.add(number)
            highest = max(highest, number)
        return late

    @property
    def faults(self) -> int:
        """Number of responses that are missing, repeated or overtaken."""
        return self.missing + self.repeated + self.overtaken


def exchange(address: str, name: str, count: int, interval: float) -> Ledger:
    """Send *count* DNS queries for *name* to *address*, one every *interval* seconds; return the ledger of responses.

    Raises:
        OSError: the network refused a query.
    """
    body = query(0, name, "A")[2:]
    ledger = Ledger(min(count, MOST))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect((address, PORT))
        began = time.monotonic()
        for number in range(ledger.sent):
            _receive(sock, ledger.arrived, began + number * interval)
            sock.send(number.to_bytes(2, "big") + body)
        while _receive(sock, ledger.arrived, time.monotonic() + QUIET):
            pass
    return ledger


def _receive(sock: socket.socket, arrived: list[int], until: float) -> Sequence[int]:
    """Return the numbers of all responses that arrive before *until*, which is a time on the monotonic clock."""
    first = len(arrived)
    while (left := until - time.monotonic()) > 0:
        if select.select([sock], [], [], left)[0]:
            arrived.append(int.from_bytes(sock.recv(4096)[:2], "big"))
    return arrived[first:]
