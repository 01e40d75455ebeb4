"""A server that does not accept (listen(2), Linux ``net.core.somaxconn``): connections wait in a queue, then SYNs drop."""

from theory.recovery import syn_times


def overflow(rate: float, stall: float, backlog: int) -> float:
    """Return how many connections find the queue full while nobody accepts for *stall* seconds.

    Args:
        rate: connections per second.
        stall: seconds.
        backlog: of listen(); Linux holds one more.
    """
    return max(0.0, rate * stall - (backlog + 1))


def full_at(rate: float, backlog: int) -> float:
    """Return the seconds until the queue is full."""
    return (backlog + 1) / rate


def connect_s(dropped_for: float, rtt: float) -> float | None:
    """Return what connect() takes when SYNs are dropped for so many seconds; None when it gives up before.

    The first repeated SYN after that succeeds, so connect times come in steps.
    """
    return next((at + rtt for at in (0.0, *syn_times()) if at >= dropped_for), None)
