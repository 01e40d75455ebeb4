"""DNS caches with Poisson lookups, before and after a record changes (Jung, Berger, Balakrishnan 2003)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation import chunks

#: Number of simulated cache cycles before the change; a cycle is the TTL plus the pause until the next lookup.
WARM_UP = 6
#: Number of points in time after the change.
BINS = 400

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fading:
    """Share of caches that hold the old record, as a function of time."""

    #: Seconds since the change.
    times: tuple[float, ...]
    #: Share at each time, from 0 to 1.
    share: tuple[float, ...]

    def at(self, seconds: float) -> float:
        """Return the share *seconds* after the change, by linear interpolation."""
        return float(np.interp(seconds, self.times, self.share))


def fading(
    caches: int, rate: float, ttl: float, *, lag: float = 0.0, secondary_share: float = 0.0, seed: int = 1
) -> Fading:
    """Simulate a change of the record at time 0, and return the share of caches that hold the old record.

    The result also describes an outage of all name servers that begins at time 0: it is the share of lookups that
    caches can still answer.

    Args:
        caches: number of caches, 10³ to 10⁹.
        rate: lookups per second at each cache.
        ttl: TTL of the record in seconds, above 0.
        lag: seconds after the change during which a secondary still serves the old record.
        secondary_share: share of lookups that go to that secondary.
        seed: seed for the random number generator.
    """
    horizon = ttl + lag
    width = horizon / (BINS - 1)

    def simulate(rng: np.random.Generator, size: int) -> Sequence[chunks.Counts]:
        ends, lookups = _until_the_change(rng, size, rate, ttl)
        ends = ends[ends > 0]
        begun, ended = np.zeros(BINS, np.int64), chunks.histogram(ends, width, BINS)
        while lag and lookups.size:  # process lookups while the secondary still serves the old record
            lookups = lookups[lookups < lag]
            lookups = lookups[rng.random(lookups.size, np.float32) < secondary_share]
            begun += chunks.histogram(lookups, width, BINS)
            ended += chunks.histogram(lookups + np.float32(ttl), width, BINS)
            lookups += np.float32(ttl) + _pauses(rng, lookups.size, rate)
        return np.array([ends.size]), begun, ended

    initial, begun, ended = chunks.run(simulate, caches, seed)
    # A lifetime that begins or ends within a bin is counted from the bin's right edge, the left edge of the next bin.
    holding = initial + np.concatenate(([0], np.cumsum(begun - ended)[:-1]))
    return Fading(tuple(map(float, width * np.arange(BINS))), tuple(map(float, holding / caches)))


def _until_the_change(rng: np.random.Generator, size: int, rate: float, ttl: float) -> tuple[Floats, Floats]:
    """Return, for each cache, when the last record cached before the change expires, and when the next lookup is."""
    cycle = ttl + 1 / rate
    ends = np.float32(-cycle) * (np.float32(WARM_UP) + rng.random(size, np.float32))
    finished_ends: list[Floats] = []
    finished_lookups: list[Floats] = []
    while ends.size:
        lookups = ends + _pauses(rng, ends.size, rate)
        before = lookups <= 0
        finished_ends.append(ends[~before])
        finished_lookups.append(lookups[~before])
        ends = lookups[before] + np.float32(ttl)
    return np.concatenate(finished_ends), np.concatenate(finished_lookups)


def _pauses(rng: np.random.Generator, size: int, rate: float) -> Floats:
    """Return exponentially distributed pauses between the expiry of a record and the next lookup, in seconds."""
    return rng.standard_exponential(size, np.float32) * np.float32(1 / rate)
