"""Coordinated omission (G. Tene, "How NOT to measure latency"): one stall, seen by an open and by a closed loop.

The modelled server answers at once except during one stall.  An open loop keeps sending and measures from the moment
each request was due.  A closed loop waits: one request per user sees the stall, and the requests that it did not send
are missing from its percentiles.  Times are seconds.
"""


def open_loop_quantile(quantile: float, stall: float, window: float) -> float:
    """Return the latency quantile of evenly spaced requests: stall - (1 - q) · window, at least 0."""
    return max(0.0, stall - (1 - quantile) * window)


def closed_loop_quantile(quantile: float, stall: float, window: float, think: float) -> float:
    """Return the latency quantile that a closed-loop user reports: 0, or the stall.

    Of the user's (window - stall) / think + 1 requests, one waits, for the whole stall at worst.

    Args:
        quantile: between 0 and 1.
        stall: length of the stall.
        window: length of the measurement.
        think: pause after each response.
    """
    requests = (window - stall) / think + 1
    return stall if (1 - quantile) * requests < 1 else 0.0


def omitted(stall: float, think: float) -> float:
    """Return how many requests per user the closed loop did not send during the stall."""
    return stall / think
