"""TIME-WAIT on the side that closes first (RFC 9293 section 3.3.2; V. Bernat, "Coping with the TCP TIME-WAIT state").

A client that opens λ connections per second to one destination holds λ · min(t, W) ports after t seconds, and has P.
The wait W is fixed (Linux: 60 s and a bit), so beyond P/W the rate is not thinned out: success is a square wave.
"""

#: Seconds, Linux TCP_TIMEWAIT_LEN.
WAIT = 60.0
#: Ports of Linux's default window 32768 to 60999, for one source address and one destination.
PORTS = 28_232


def sockets_waiting(rate: float, seconds: float, wait: float = WAIT) -> float:
    """Return sockets in TIME-WAIT after *seconds* of *rate* connections per second."""
    return rate * min(seconds, wait)


def exhausted_at(rate: float, ports: int = PORTS, wait: float = WAIT) -> float | None:
    """Return the second in which the ports run out; None when they never do."""
    moment = ports / rate
    return moment if moment < wait else None


def sustainable_rate(ports: int = PORTS, wait: float = WAIT) -> float:
    """Return connections per second that last for ever."""
    return ports / wait


def duty_cycle(rate: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of time in which connections succeed."""
    return min(1.0, ports / (rate * wait))


def success_share(rate: float, second: float, ports: int = PORTS, wait: float = WAIT) -> float:
    """Return the share of connections that succeed at *second*: 1 or 0, a square wave of period *wait*."""
    moment = exhausted_at(rate, ports, wait)
    return 1.0 if moment is None or second % wait < moment else 0.0
