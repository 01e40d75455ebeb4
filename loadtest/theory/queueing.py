"""Waiting time for one of c connections with Poisson arrivals: M/M/c (exponential holding times), M/D/c (constant)."""

import bisect
import cmath
import heapq
import math
import random
import statistics
from collections.abc import Iterable, Iterator

#: Newton's method stops when its step is smaller than this value.
_PRECISION = 1e-14
#: Number of simulated runs in `scatter_of_a_run`; 32 runs determine the standard deviation to within an eighth.
RUNS = 32


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a request has to wait (Erlang 1917).

    Args:
        servers: c, the number of connections.
        load: λ · mean holding time, in erlangs.

    Raises:
        ValueError: *load* is not below *servers*, so that the queue would grow without bound.
    """
    if not 0 <= load < servers:
        raise ValueError(f"expected a load below {servers} erlangs, got {load:g}")
    blocked = 1.0  # Erlang B, computed by its recursion, which cannot overflow
    for c in range(1, servers + 1):
        blocked = load * blocked / (c + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def mm_c_wait(rate: float, holding: float, servers: int) -> float:
    """Return the mean wait in seconds for exponential holding times with a mean of *holding* seconds."""
    load = rate * holding
    return erlang_c(servers, load) * holding / (servers - load)


def mm_c_wait_quantile(rate: float, holding: float, servers: int, quantile: float) -> float:
    """Return a quantile of the M/M/c wait in seconds, from P(W > t) = C · e^(-(cμ - λ)t)."""
    waiting = erlang_c(servers, rate * holding)
    if waiting <= 1 - quantile:
        return 0.0
    return math.log(waiting / (1 - quantile)) * holding / (servers - rate * holding)


def md_c_wait(rate: float, holding: float, servers: int) -> float:
    """Return the exact mean wait in seconds for constant holding times of *holding* seconds.

    Observed once per holding time D, the queue length is Q' = max(0, Q + A - c) with Poisson arrivals A of mean a = λD
    (Crommelin 1932).  Its mean is (a² - c(c - 1)) / 2(c - a) + Σ 1 / (1 - z), where the sum is over the roots z of z^c
    = e^(a(z - 1)) inside the unit circle (Janssen and van Leeuwaarden 2008, "Back to the roots of the M/D/s queue").
    Little's law converts the mean queue length to a mean wait. (Cosmetatos' approximation of 1976 has an error of 2 %
    here.)

    Raises:
        ValueError: the load is not below *servers*, as in `erlang_c`.
    """
    load = rate * holding
    if not 0 <= load < servers:
        raise ValueError(f"expected a load below {servers} erlangs, got {load:g}")
    if not load:
        return 0.0
    waiting = (load**2 - servers * (servers - 1)) / (2 * (servers - load))
    for k in range(1, servers):
        waiting += (1 / (1 - _root(cmath.exp(2j * math.pi * k / servers), load / servers))).real
    return max(0.0, waiting) / rate


def waits(arrivals: Iterable[float], holdings: Iterable[float], servers: int) -> Iterator[float]:
    """Yield the wait in seconds of each request for given arrival and holding times, in FIFO order.

    This is the recursion of Kiefer and Wolfowitz (1955).  A short run may be far from the long-run mean only because of
    its random arrivals; comparing it with this recursion for the same arrivals removes that scatter.
    """
    free = [0.0] * servers
    for arrival, holding in zip(arrivals, holdings, strict=False):
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + holding)
        yield begin - arrival


def scatter_of_a_run(rate: float, holding: float, servers: int, seconds: float, *, constant: bool = False) -> float:
    """Return the standard deviation of a run's mean wait, as a share of the long-run mean.

    Consecutive waits are correlated, so the mean of n waits is far less precise than the mean of n independent waits.
    The result is computed from `RUNS` seeded simulations; the mean wait of each is divided by the model's mean for the
    rate and holding time that occurred in that simulation.

    Raises:
        ValueError: the load is not below *servers*, or too close to it for runs of this length.
    """
    model = md_c_wait if constant else mm_c_wait
    ratios = []
    for number in range(RUNS):
        rng, now = random.Random(number), 0.0
        arrivals, holdings = [], []
        while (now := now + rng.expovariate(rate)) < seconds:
            arrivals.append(now)
            holdings.append(holding if constant else rng.expovariate(1 / holding))
        own = len(arrivals) / seconds, statistics.fmean(holdings)
        if own[0] * own[1] < servers:  # a run that is overloaded by chance has no long-run mean
            ratios.append(statistics.fmean(waits(arrivals, holdings, servers)) / model(*own, servers))
    if len(ratios) < RUNS // 2:
        raise ValueError(f"expected a load below {servers} erlangs in runs of {seconds:g} s, got {rate * holding:g}")
    return statistics.stdev(ratios)


def smallest_pool(
    rate: float, holding: float, wait: float, *, constant: bool = False, quantile: float | None = None
) -> int:
    """Return the smallest number of connections with a wait of at most *wait* seconds.

    Args:
        rate: requests per second.
        holding: mean time for which a request holds a connection, in seconds.
        wait: largest acceptable wait in seconds, above 0.
        constant: whether holding times are constant instead of exponential.
        quantile: None to bound the mean wait; otherwise the quantile to bound, for exponential holding times only.
    """
    if wait <= 0:
        raise ValueError(f"expected a wait above 0 seconds, got {wait:g}")

    def waits_at_most(servers: int) -> bool:
        if quantile is not None:
            return mm_c_wait_quantile(rate, holding, servers, quantile) <= wait
        return (md_c_wait if constant else mm_c_wait)(rate, holding, servers) <= wait

    least, step = math.floor(rate * holding) + 1, 1
    while not waits_at_most(least + step - 1):
        step *= 2
    return least + bisect.bisect_left(range(step), True, key=lambda more: waits_at_most(least + more))


def _root(unity: complex, utilisation: float) -> complex:
    """Return the root z = unity · e^(ρ(z - 1)) inside the unit circle, for a root of unity other than 1."""
    z = 0j
    while True:
        image = unity * cmath.exp(utilisation * (z - 1))
        step = (image - z) / (1 - utilisation * image)
        z += step
        if abs(step) < _PRECISION:
            return z
