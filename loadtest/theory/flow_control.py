"""The receive window as a rate limit (RFC 9293 section 3.8.6): bandwidth = window / RTT.

At most one window may be in flight.  Window scaling (RFC 7323) exists because 64 KiB fill only short paths.
"""

#: Largest window in bytes that the 16-bit header field announces without scaling.
UNSCALED_WINDOW = 65_535


def throughput_bps(window: int, rtt: float, bandwidth_bps: float = float("inf")) -> float:
    """Return bits per second of one connection: min(bandwidth, window / RTT).

    Args:
        window: bytes that the receiver allows in flight.
        rtt: seconds.
        bandwidth_bps: capacity of the narrowest link, bits per second.
    """
    return min(bandwidth_bps, window * 8 / rtt)


def window_for(bandwidth_bps: float, rtt: float) -> float:
    """Return the window in bytes that fills a path: the bandwidth-delay product."""
    return bandwidth_bps * rtt / 8


def limited_s(pause: float, buffer: int, rate_bps: float) -> float:
    """Return the seconds for which a closed receive window stops the sender while the reader pauses.

    Args:
        pause: seconds for which the application reads nothing.
        buffer: bytes that the receiver's kernel accepts before its window closes.
        rate_bps: rate at which the sender would send, bits per second.
    """
    return max(0.0, pause - buffer * 8 / rate_bps)
