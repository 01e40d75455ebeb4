"""TIME-WAIT on the side that closes first (RFC 9293 section 3.3.2; V. Bernat, "Coping with the TCP TIME-WAIT state").

A client that opens λ connections per second to one destination holds λ · min(t, W) of its P ports after t seconds.  The
wait W is fixed (slightly above 60 s on Linux).  At more than P/W connections per second, success is therefore a square
wave with a duty cycle of P/(λW): all connections succeed until P/λ, none until W, then all succeed again.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

#: Duration of TIME-WAIT in seconds (Linux's TCP_TIMEWAIT_LEN).  The kernel's timers extend it to between 60 and 64 s,
#: so scenarios measure the actual duration.
WAIT = 60.0
#: Number of source ports in Linux's default range, 32768 to 60999, for one source address and one destination.
PORTS = 28_232
#: Seconds after which ``tcp_tw_reuse`` = 1 reuses a port, when TCP timestamps have advanced (RFC 6191).
REUSE_WAIT = 1.0


def sockets_waiting(rate: float, seconds: float, wait: float = WAIT) -> float:
    """Return the number of TIME-WAIT sockets after *seconds* at *rate* connections per second, until ports run out."""
    return rate * min(seconds, wait)


def ports_held(rate: float, seconds: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the number of TIME-WAIT sockets on a server that closes first, after *seconds*.

    A SYN replaces a TIME-WAIT socket with the same four-tuple (RFC 6191), and Linux selects source ports at random (RFC
    6056).  The number of sockets is therefore the number of occupied bins when λ · min(t, W) balls fall at random into
    as many bins as the client has ports.
    """
    return ports * (1 - math.exp(-sockets_waiting(rate, seconds, wait) / ports))


def exhausted_at(rate: float, ports: int = PORTS, wait: float = WAIT) -> float | None:
    """Return the time in seconds at which the ports run out, t* = P/λ; None if they never run out."""
    moment = ports / rate
    return moment if moment < wait else None


def sustainable_rate(ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the maximum sustainable rate in connections per second, P/W."""
    return ports / wait


def duty_cycle(rate: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of time during which connections succeed, P/(λW), at most 1."""
    return min(1.0, ports / (rate * wait))


def success_share(rate: float, second: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of connections that succeed at *second*: 1 or 0, a square wave with period *wait*."""
    moment = exhausted_at(rate, ports, wait)
    return 1.0 if moment is None or second % wait < moment else 0.0


def timer_step(hz: int, seconds: float = WAIT) -> float:
    """Return the granularity in seconds of a Linux timer of *seconds*, on a kernel with *hz* ticks per second.

    The timer wheel (kernel/time/timer.c) has 64 slots per level, and each level is eight times coarser than the level
    below.  A TIME-WAIT of 60 s ends at a multiple of 2.048 s with 250 ticks per second, and of 4.096 s with 1,000.
    """
    ticks, level = round(seconds * hz), 0
    while ticks >= 63 << (3 * level):
        level += 1
    return float(8**level) / hz


def on_the_wheel(
    times: Iterable[float], ports: int, step: float, first: float, wait: float = WAIT
) -> Iterator[tuple[bool, int]]:
    """Yield for each attempt whether it finds a free port, and the number of TIME-WAIT sockets after it.

    Each connection is closed immediately.  Its socket stays in TIME-WAIT until the first turn of the timer wheel after
    *wait* seconds.

    Args:
        times: start of each attempt in seconds, in ascending order.
        ports: number of source ports.
        step: granularity of the timer wheel in seconds, see `timer_step`.
        first: a time in seconds at which the wheel turns; it also turns every *step* seconds before and after.
        wait: seconds in TIME-WAIT before rounding to the timer wheel.
    """
    waiting: deque[float] = deque()
    for at in times:
        while waiting and waiting[0] <= at:
            waiting.popleft()
        found = len(waiting) < ports
        if found:
            waiting.append(first + step * math.ceil((at + wait - first) / step))
        yield found, len(waiting)


def cured_rate(
    ports: int = PORTS,
    wait: float = WAIT,
    *,
    sources: int = 1,
    destinations: int = 1,
    tw_reuse: bool = False,
    reused: float = 0.0,
    server_closes: bool = False,
    busy: float = 0.0,
) -> float:
    """Return the rate of requests, per second, that a client can sustain with the given remedies for port exhaustion.

    Args:
        ports: source ports per source address and destination.
        wait: seconds in TIME-WAIT.
        sources: number of source addresses that the client uses in turn.
        destinations: number of server addresses times number of server ports, because TIME-WAIT applies to the whole
            four-tuple.
        tw_reuse: whether ``net.ipv4.tcp_tw_reuse`` is 1 and both ends send timestamps, so that a port is in TIME-WAIT
            for one second.
        reused: share of requests on a connection that is already open (keep-alive), below 1.
        server_closes: whether the server closes first.  The server then holds the TIME-WAIT sockets, and the client's
            ports never run out: it may connect from the same port again, and the server reopens the connection directly
            from TIME-WAIT (RFC 1122 section 4.2.2.13).
        busy: seconds for which a port is in use before TIME-WAIT: two round trips, to connect and to close.

    Raises:
        ValueError: *reused* is not a share below 1.
    """
    if server_closes:
        return float("inf")
    if not 0 <= reused < 1:
        raise ValueError(f"expected a share of reused connections from 0 to below 1, got {reused:g}")
    opened = sustainable_rate(ports * sources * destinations, busy + (min(wait, REUSE_WAIT) if tw_reuse else wait))
    return opened / (1 - reused)


def cure_factor(
    *,
    sources: int = 1,
    destinations: int = 1,
    ports_ratio: float = 1.0,
    tw_reuse: bool = False,
    reused: float = 0.0,
    wait: float = WAIT,
    busy: float = 0.0,
) -> float:
    """Return the factor by which remedies raise the sustainable rate.

    The remedies are those of `cured_rate`; *ports_ratio* is the size of the new port range divided by the old size.
    """
    cured = cured_rate(
        wait=wait, sources=sources, destinations=destinations, tw_reuse=tw_reuse, reused=reused, busy=busy
    )
    return ports_ratio * cured / sustainable_rate(wait=wait + busy)
