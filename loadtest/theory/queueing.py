"""Waiting for one of c connections (Erlang 1917): exponential holding times M/M/c, constant ones M/D/c."""

import math


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a request waits, for *load* = λ · holding time erlangs offered to *servers*.

    Raises:
        ValueError: the load is not below the number of servers; the queue would grow for ever.
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


def md_c_wait(rate: float, holding: float, servers: int) -> float:
    """Return the mean wait in seconds when holding times are constant.

    Crommelin's exact M/D/c (1932), in the form of Tijms, "A First Course in Stochastic Models", section 9.6:
    the wait is half of M/M/c's times a correction for c > 1 (Cosmetatos 1976), exact at c = 1 and within 2 % above.
    """
    load = rate * holding
    rho = load / servers
    correction = 1 + (1 - rho) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * rho * servers)
    return 0.5 * correction * mm_c_wait(rate, holding, servers)
