"""Waiting for one of c connections with Poisson arrivals: M/M/c (exponential holding times) and M/D/c (constant)."""

import cmath
import heapq
import math
import random
import statistics
from collections.abc import Iterable, Iterator

#: Newton's method stops when a step is smaller than this.
_PRECISION = 1e-14
#: Simulated runs behind `scatter_of_a_run`: they determine it to within an eighth.
RUNS = 32


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a request waits (Erlang 1917).

    Args:
        servers: c, number of connections.
        load: λ · holding time, in erlangs.

    Raises:
        ValueError: the load is not below the number of servers, so that the queue would grow for ever.
    """
    if not 0 <= load < servers:
        raise ValueError(f"expected a load below {servers} erlangs, got {load:g}")
    blocked = 1.0  # Erlang B by its recursion, which never overflows
    for c in range(1, servers + 1):
        blocked = load * blocked / (c + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def mm_c_wait(rate: float, holding: float, servers: int) -> float:
    """Return the mean wait in seconds when holding times are exponential."""
    load = rate * holding
    return erlang_c(servers, load) * holding / (servers - load)


def mm_c_wait_quantile(rate: float, holding: float, servers: int, quantile: float) -> float:
    """Return a quantile of the M/M/c wait in seconds, from P(W > t) = C · e^(-(cμ - λ)t)."""
    waiting = erlang_c(servers, rate * holding)
    if waiting <= 1 - quantile:
        return 0.0
    return math.log(waiting / (1 - quantile)) * holding / (servers - rate * holding)


def md_c_wait(rate: float, holding: float, servers: int) -> float:
    """Return the exact mean wait in seconds when holding times are constant.

    Observed once per holding time D, the queue length is Q' = max(0, Q + A - c) with Poisson arrivals A of mean a = λD
    (Crommelin 1932).  Its mean follows from the roots z of z^c = e^(a(z - 1)) inside the unit circle (Janssen and van
    Leeuwaarden 2008, "Back to the roots of the M/D/s queue"): (a² - c(c - 1)) / 2(c - a) + Σ 1 / (1 - z).  Little's law
    turns it into a wait.  (Cosmetatos' approximation of 1976 is 2 % off here.)

    Raises:
        ValueError: as `erlang_c`.
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
    """Yield the wait in seconds of each request for given arrivals and holding times, first come first served.

    The recursion of Kiefer and Wolfowitz 1955.  Compared with it, a run of seconds shows no scatter from its own
    arrivals, which may put it far from the mean of the same queue over hours.
    """
    free = [0.0] * servers
    for arrival, holding in zip(arrivals, holdings, strict=False):
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + holding)
        yield begin - arrival


def scatter_of_a_run(rate: float, holding: float, servers: int, seconds: float, *, constant: bool = False) -> float:
    """Return the standard deviation of a run's mean wait, as a share of the long-run mean.

    Consecutive waits are correlated, so n requests tell far less than n independent waits would.  Taken from `RUNS`
    seeded simulations, each divided by the model's mean at the rate and holding time that it happened to have.

    Raises:
        ValueError: as `erlang_c`.
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


def smallest_pool(rate: float, holding: float, wait: float, *, constant: bool = False) -> int:
    """Return the fewest connections with a mean wait of at most *wait* seconds.

    Args:
        rate: requests per second.
        holding: seconds for which a request holds a connection, on average.
        wait: seconds, above 0.
        constant: whether holding times are constant; else they are exponential.
    """
    if wait <= 0:
        raise ValueError(f"expected a wait above 0 seconds, got {wait:g}")
    model = md_c_wait if constant else mm_c_wait
    servers = math.floor(rate * holding) + 1
    while model(rate, holding, servers) > wait:
        servers += 1
    return servers


def _root(unity: complex, utilisation: float) -> complex:
    """Return the root z = unity · e^(ρ(z - 1)) inside the unit circle, for a root of unity other than 1."""
    z = 0j
    while True:
        image = unity * cmath.exp(utilisation * (z - 1))
        step = (image - z) / (1 - utilisation * image)
        z += step
        if abs(step) < _PRECISION:
            return z
