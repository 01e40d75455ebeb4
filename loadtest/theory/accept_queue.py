"""A server that stops calling accept(): connections fill the listen queue, then SYNs are dropped.

Sources: listen(2), Linux ``net.core.somaxconn``.
"""

from theory.recovery import syn_times


def overflow(rate: float, stall: float, backlog: int) -> float:
    """Return how many connections find the queue full during a stall of *stall* seconds.

    Args:
        rate: connections per second.
        stall: seconds without accept().
        backlog: argument of listen(); Linux queues one more.
    """
    return max(0.0, rate * stall - (backlog + 1))


def full_at(rate: float, backlog: int) -> float:
    """Return the seconds until the queue is full."""
    return (backlog + 1) / rate


def connect_s(dropped_for: float, rtt: float) -> float | None:
    """Return the seconds that connect() takes if SYNs are dropped for *dropped_for* seconds; None if it gives up first.

    The first retransmitted SYN after that time succeeds, so connect times come in steps.
    """
    return next((at + rtt for at in (0.0, *syn_times()) if at >= dropped_for), None)
