"""Certificate renewals through an outage of the CA: the orders that meet it when it is back, and what has expired."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation import chunks

#: Resolution of the time.
BINS = 400


@dataclass(frozen=True, slots=True)
class Storm:
    """Orders over time, and certificates that expired before they were renewed."""

    #: Start of each interval, in seconds since the outage began, and orders per second in it.
    times: tuple[float, ...]
    orders: tuple[float, ...]
    #: Share of certificates that expired, from 0 to 1.
    expired: float

    @property
    def peak(self) -> float:
        """The highest rate of orders, per second."""
        return max(self.orders)


def storm(certificates: int, lifetime: float, cycle: float, outage: float, spread: float, *, seed: int = 1) -> Storm:
    """Simulate every certificate through an outage of the CA that begins at time 0.

    Args:
        certificates: number of certificates, issued at random times.
        lifetime: lifetime of a certificate in seconds.
        cycle: seconds after which a certificate is renewed, at most *lifetime*.
        outage: duration of the outage in seconds.
        spread: each client that could not renew orders within this many seconds after the outage, at a random time.
        seed: of the random numbers.
    """
    horizon = max(outage + 2 * spread, 1.0)
    width = horizon / (BINS - 1)  # the last bin counts what happens later

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
