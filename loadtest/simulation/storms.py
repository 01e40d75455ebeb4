"""Certificate renewals during and after an outage of the CA: rate of orders, and share of expired certificates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation import chunks

#: Number of intervals into which the simulated time is divided.
BINS = 400


@dataclass(frozen=True, slots=True)
class Storm:
    """Orders as a function of time, and the share of certificates that expired before their renewal."""

    #: Start of each interval, in seconds since the outage began.
    times: tuple[float, ...]
    #: Orders per second in each interval.
    orders: tuple[float, ...]
    #: Share of certificates that expired, from 0 to 1.
    expired: float

    @property
    def peak(self) -> float:
        """The highest rate of orders, per second."""
        return max(self.orders)


def storm(certificates: int, lifetime: float, cycle: float, outage: float, spread: float, *, seed: int = 1) -> Storm:
    """Simulate an outage of the CA that begins at time 0, and return the orders and expired certificates.

    Args:
        certificates: number of certificates, issued at random times.
        lifetime: lifetime of a certificate in seconds.
        cycle: seconds after which a certificate is renewed, at most *lifetime*.
        outage: duration of the outage in seconds.
        spread: each client that could not renew sends its order at a random time within this many seconds after the
            outage.
        seed: seed for the random number generator.
    """
    horizon = max(outage + 2 * spread, 1.0)
    width = horizon / (BINS - 1)  # the last bin counts all later orders

    def simulate(rng: np.random.Generator, size: int) -> Sequence[chunks.Counts]:
        due = rng.random(size, np.float32) * np.float32(cycle)
        ordered = due.copy()
        late = due < outage
        ordered[late] = np.float32(outage) + np.float32(spread) * rng.random(int(late.sum()), np.float32)
        expired = np.count_nonzero(ordered[late] - due[late] > lifetime - cycle)
        return chunks.histogram(ordered, width, BINS), np.array([expired])

    orders, expired = chunks.run(simulate, certificates, seed)
    times = width * np.arange(BINS - 1)
    return Storm(tuple(map(float, times)), tuple(map(float, orders[:-1] / width)), float(expired[0]) / certificates)
