"""Opens connections through a kernel NAT with a small port pool, which `lab/etc/host.sh` sets up on host `lab`.

The kernel tracks connections from the source ports `INSIDE`, and translates each source port to one of `PORTS` other
ports.  Like every NAT with one address, it can use each port only once per destination.
"""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from linuxnet.source_ports import Source
from scenarios.instruments.openings import Opening, open_all

#: First source port that the NAT translates, and number of these ports (a test compares both with the compose file).
INSIDE, INSIDE_PORTS = 61_000, 1000
#: Number of ports that the NAT can use for each destination (a test compares it with the compose file).
PORTS = 128
#: Time-out of a connection attempt in seconds; it includes the first retransmission of a SYN, which is sent after 1 s.
TIMEOUT = 1.5
#: Number of connections to a second destination while the NAT has no port left towards the first one.
ELSEWHERE = 10
#: Number of tracked connections in this network namespace.
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
#: Interval at which the number of tracked connections is read, in seconds.
POLL = 0.05
#: How long to wait for entries of an earlier run to expire, in seconds; the kernel keeps a reset connection for 10 s.
EXPIRES = 15.0


@dataclass(slots=True)
class Translated:
    """Attempts to connect through the NAT, and the size of its table."""

    #: Attempts to connect to one destination.
    openings: list[Opening] = field(default_factory=list)
    #: Attempts to connect to another port of the server while the NAT has no port left towards the first one.
    elsewhere: list[Opening] = field(default_factory=list)
    #: Samples of the number of tracked connections: seconds since the first attempt, and the number.
    table: list[tuple[float, int]] = field(default_factory=list)
    #: Number of tracked connections before the first attempt.
    before: int = 0

    @property
    def largest(self) -> int:
        """Largest number of tracked connections."""
        return max((count for _, count in self.table), default=0)


def tracked() -> int | None:
    """Return the number of tracked connections in this network namespace; None if the kernel tracks none."""
    try:
        return int(COUNT.read_text())
    except OSError:
        return None


async def exhaust(address: str, ports: tuple[int, int], rate: float, count: int) -> Translated:
    """Open *count* connections through the NAT to the first of *ports*, then a few to the second one.

    Args:
        address: IPv4 address of the server.
        ports: two ports on which the server listens.
        rate: attempts per second.
        count: number of attempts, more than `PORTS`.
    """
    found = Translated()
    end = time.monotonic() + EXPIRES
    while (tracked() or 0) and time.monotonic() < end:  # noqa: ASYNC110 - polls: the kernel signals no expiry
        await asyncio.sleep(10 * POLL)  # polling interval
    found.before = tracked() or 0
    began = time.monotonic()

    async def sample() -> None:
        while True:
            found.table.append((time.monotonic() - began, tracked() or 0))
            await asyncio.sleep(POLL)  # polling interval

    async def other() -> None:
        await asyncio.sleep(count / rate)  # all attempts to connect to the first destination have begun
        sources = [Source(port=INSIDE + count + n) for n in range(ELSEWHERE)]
        found.elsewhere = await open_all((address, ports[1]), 2 * rate, sources, TIMEOUT)

    sampling = asyncio.create_task(sample())
    try:
        sources = [Source(port=INSIDE + n) for n in range(count)]
        found.openings, _ = await asyncio.gather(open_all((address, ports[0]), rate, sources, TIMEOUT), other())
    finally:
        sampling.cancel()
    return found
