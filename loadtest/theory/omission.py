"""Coordinated omission (G. Tene, "How NOT to measure latency"): what a stall looks like to an open and a closed loop.

A server that answers at once stands still for one stall in a window.  An open loop goes on sending and counts from when
each request was due; a closed loop waits, so a single request per user sees the stall and the many it did not send are
missing from its percentiles.  Times are seconds.
"""


def open_loop_quantile(quantile: float, stall: float, window: float) -> float:
    """Return the latency that a share *quantile* of evenly spread requests does not exceed: stall - (1 - q) · window."""
    return max(0.0, stall - (1 - quantile) * window)


def closed_loop_quantile(quantile: float, stall: float, window: float, think: float) -> float:
    """Return what one closed-loop user prints who pauses *think* seconds after each answer: nothing, or the stall.

    Of its (window - stall) / think + 1 requests one waits, for the whole stall at worst.
    """
    requests = (window - stall) / think + 1
    return stall if (1 - quantile) * requests < 1 else 0.0


def omitted(stall: float, think: float) -> float:
    """Return how many requests per user the closed loop did not send while it waited."""
    return stall / think
