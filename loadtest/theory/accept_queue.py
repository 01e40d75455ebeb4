"""Model of a server that stops calling accept(): connections fill the listen queue, then SYNs are dropped.

Sources: listen(2), Linux ``net.core.somaxconn``.
"""

from theory.recovery import syn_times


def overflow(rate: float, stall: float, backlog: int) -> float:
    """Return the number of connections that arrive at a full queue during a stall of *stall* seconds.

    Args:
        rate: new connections per second.
        stall: seconds during which the server does not call accept().
        backlog: argument of listen(); Linux queues one more connection.
    """
    return max(0.0, rate * stall - (backlog + 1))


def full_at(rate: float, backlog: int) -> float:
    """Return the time in seconds from the start of the stall until the queue is full."""
    return (backlog + 1) / rate


def connect_s(dropped_for: float, rtt: float) -> float | None:
    """Return the duration of connect() in seconds if SYNs are dropped for the first *dropped_for* seconds.

    The first SYN that is retransmitted after that time succeeds, so the duration increases in steps.  The result is
    None if connect() gives up first.
    """
    return next((at + rtt for at in (0.0, *syn_times()) if at >= dropped_for), None)
