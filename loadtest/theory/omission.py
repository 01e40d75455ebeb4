"""Coordinated omission (G. Tene, "How NOT to measure latency"): one stall, measured with an open and a closed loop.

The modelled server responds immediately, except during one stall.  An open loop keeps sending, and measures latency
from the scheduled time of each request.  A closed loop waits for each response: only one request per user experiences
the stall, and the requests that were not sent are missing from the percentiles.  Times are in seconds.
"""


def open_loop_quantile(quantile: float, stall: float, window: float) -> float:
    """Return the latency quantile of evenly spaced open-loop requests: stall - (1 - q) · window, at least 0."""
    return max(0.0, stall - (1 - quantile) * window)


def closed_loop_quantile(quantile: float, stall: float, window: float, think: float) -> float:
    """Return the latency quantile that a closed-loop user reports: 0, or the length of the stall.

    The user sends (window - stall) / think + 1 requests.  One of them waits, at worst for the whole stall.

    Args:
        quantile: q, between 0 and 1.
        stall: length of the stall in seconds.
        window: length of the measurement in seconds.
        think: pause after each response in seconds.
    """
    requests = (window - stall) / think + 1
    return stall if (1 - quantile) * requests < 1 else 0.0


def omitted(stall: float, think: float) -> float:
    """Return the number of requests per user that the closed loop did not send because of the stall."""
    return stall / think
