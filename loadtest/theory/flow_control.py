"""The receiver's window (RFC 9293 section 3.8.6): at most one window can be on the way, so it limits like a rate.

Bandwidth = window / RTT.  Window scaling (RFC 7323) exists because 64 KiB are not enough for any distance.
"""

#: Octets that the header's 16 bits can announce without scaling; SCENARIOS' figure takes 64 KiB.
UNSCALED_WINDOW = 65_535


def throughput_bps(window: int, rtt: float, bandwidth_bps: float = float("inf")) -> float:
    """Return bits per second of one connection: min(bandwidth, window / RTT).

    Args:
        window: octets that the receiver lets be on the way.
        rtt: seconds.
        bandwidth_bps: of the narrowest link, bits per second.
    """
    return min(bandwidth_bps, window * 8 / rtt)


def window_for(bandwidth_bps: float, rtt: float) -> float:
    """Return the octets of window that fill a path: the bandwidth-delay product."""
    return bandwidth_bps * rtt / 8


def limited_s(pause: float, buffer: int, rate_bps: float) -> float:
    """Return the seconds in which the sender is held by the receiver's window while the reader pauses.

    Args:
        pause: seconds in which the reader reads nothing.
        buffer: octets that the receiver's kernel takes before its window is shut.
        rate_bps: at which the sender would go on, bits per second.
    """
    return max(0.0, pause - buffer * 8 / rate_bps)
