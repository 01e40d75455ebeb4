"""TIME-WAIT on the side that closes first (RFC 9293 section 3.3.2; V. Bernat, "Coping with the TCP TIME-WAIT state").

A client that opens λ connections per second to one destination holds λ · min(t, W) ports after t seconds, and has P.
The wait W is fixed (Linux: 60 s and a bit), so beyond P/W the rate is not thinned out: success is a square wave of duty
P/(λW), all until P/λ, nothing until W, and again.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

#: Seconds, Linux TCP_TIMEWAIT_LEN; the kernel's timers make it 60 to 64, so a scenario calibrates it.
WAIT = 60.0
#: Ports of Linux's default window 32768 to 60999, for one source address and one destination.
PORTS = 28_232
#: Seconds after which ``tcp_tw_reuse`` = 1 gives a port to a new connection: time stamps must have moved on (RFC 6191).
REUSE_WAIT = 1.0


def sockets_waiting(rate: float, seconds: float, wait: float = WAIT) -> float:
    """Return sockets in TIME-WAIT after *seconds* of *rate* connections per second, as long as ports last."""
    return rate * min(seconds, wait)


def ports_held(rate: float, seconds: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return ports held at the far end after *seconds* when it closes first, and never runs out.

    A new SYN takes the place of a waiting socket with the same ports (RFC 6191), and Linux draws source ports at random
    (RFC 6056): λ·min(t, wait) balls in as many bins as there are ports.
    """
    return ports * (1 - math.exp(-sockets_waiting(rate, seconds, wait) / ports))


def exhausted_at(rate: float, ports: int = PORTS, wait: float = WAIT) -> float | None:
    """Return the second in which the ports run out, t* = P/λ; None when they never do."""
    moment = ports / rate
    return moment if moment < wait else None


def sustainable_rate(ports: int = PORTS, wait: float = WAIT) -> float:
    """Return connections per second that last for ever, P/W."""
    return ports / wait


def duty_cycle(rate: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of time in which connections succeed, P/(λW)."""
    return min(1.0, ports / (rate * wait))


def success_share(rate: float, second: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of connections that succeed at *second*: 1 or 0, a square wave of period *wait*."""
    moment = exhausted_at(rate, ports, wait)
    return 1.0 if moment is None or second % wait < moment else 0.0


def timer_step(hz: int, seconds: float = WAIT) -> float:
    """Return the seconds to which Linux rounds a timer of *seconds* up, on a kernel of *hz* ticks per second.

    The timer wheel (kernel/time/timer.c) has 64 slots per level, each level eight times coarser than the one below: a
    TIME-WAIT of 60 s ends at a multiple of 2.048 s with 250 ticks, of 4.096 s with 1,000.
    """
    ticks, level = round(seconds * hz), 0
    while ticks >= 63 << (3 * level):
        level += 1
    return float(8**level) / hz


def on_the_wheel(
    times: Iterable[float], ports: int, step: float, first: float, wait: float = WAIT
) -> Iterator[tuple[bool, int]]:
    """Yield for each attempt whether it finds a port, and how many sockets wait then.

    Each connection is closed at once, and its socket waits until the timer wheel turns after *wait* seconds.

    Args:
        times: of the attempts, in order.
        ports: that there are.
        step: of the timer wheel, see `timer_step`.
        first: a moment at which the wheel turns; it turns every *step* seconds before and after.
        wait: seconds before rounding.
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
    """Return requests per second that a client can make for ever, with cures applied.

    Args:
        ports: of the window, per source address and destination.
        wait: seconds in TIME-WAIT.
        sources: source addresses that the client uses in turn.
        destinations: addresses times ports of the servers; TIME-WAIT belongs to the whole four-tuple.
        tw_reuse: ``net.ipv4.tcp_tw_reuse`` = 1, with time stamps: a port waits one second only.
        reused: share of requests on a connection that was open (keep-alive), below 1.
        server_closes: the server closes first, and the sockets wait at its end: the client's ports last for ever
            (a second connection from the same port would meet the server's TIME-WAIT: RFC 1122 section 4.2.2.13).
        busy: seconds that a port is in use before it waits; two round trips to connect and to close.
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
    """Return by how much cures multiply the sustainable rate; *ports_ratio* is the new window over the old one."""
    cured = cured_rate(PORTS, wait, sources=sources, destinations=destinations, tw_reuse=tw_reuse, reused=reused, busy=busy)  # fmt: skip
    return ports_ratio * cured / sustainable_rate(PORTS, wait + busy)
