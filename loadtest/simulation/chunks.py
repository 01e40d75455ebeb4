"""Runs a simulation of many independent clients in chunks on all cores; the result depends only on the seed."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

#: Clients per chunk, few enough for the arrays to fit into a processor's cache.
CHUNK = 1 << 18

Counts = NDArray[np.int64]
Chunk = Callable[[np.random.Generator, int], Sequence[Counts]]


def run(simulate: Chunk, clients: int, seed: int) -> list[Counts]:
    """Return the sums of the counts that *simulate* returns for each chunk.

    Args:
        simulate: called with a random generator and a number of clients, in several threads at the same time (numpy
            releases the interpreter lock).
        clients: total number of clients.
        seed: seed for the random number generators; the result does not depend on the number of cores.
    """
    sizes = [CHUNK] * (clients // CHUNK) + ([clients % CHUNK] if clients % CHUNK else [])

    def one(number: int) -> Sequence[Counts]:
        return simulate(np.random.Generator(np.random.SFC64((seed, number))), sizes[number])

    total: list[Counts] | None = None
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for counts in threads.map(one, range(len(sizes))):
            total = (
                [np.array(each) for each in counts]
                if total is None
                else [a + b for a, b in zip(total, counts, strict=True)]
            )
    return total or []


def histogram(values: NDArray[np.float32], width: float, bins: int) -> Counts:
    """Count *values* (0 or more) in bins of *width*; the last bin also counts all larger values."""
    numbers = np.minimum(values * np.float32(1 / width), np.float32(bins - 1)).astype(np.int32)
    return np.bincount(numbers, minlength=bins)
