"""The receive window as a limit of throughput (RFC 9293 section 3.8.6): bandwidth = window / RTT.

At most one window of data can be in flight.  An unscaled window of 64 KiB can fill only short paths; window scaling
(RFC 7323) removes this limit.
"""

#: Largest receive window that the 16-bit header field can announce without scaling, in bytes.
UNSCALED_WINDOW = 65_535


def throughput_bps(window: int, rtt: float, bandwidth_bps: float = float("inf")) -> float:
    """Return the throughput of one connection in bits per second: min(bandwidth, window / RTT).

    Args:
        window: receive window in bytes.
        rtt: round-trip time in seconds.
        bandwidth_bps: capacity of the slowest link in bits per second.
    """
    return min(bandwidth_bps, window * 8 / rtt)


def window_for(bandwidth_bps: float, rtt: float) -> float:
    """Return the smallest receive window in bytes that fills the path: the bandwidth-delay product."""
    return bandwidth_bps * rtt / 8


def limited_s(pause: float, buffer: int, rate_bps: float) -> float:
    """Return the time in seconds for which a closed receive window stops the sender while the reader pauses.

    Args:
        pause: seconds for which the application does not read.
        buffer: bytes that the receiver's kernel buffers before it closes the window.
        rate_bps: sending rate without this limit, in bits per second.
    """
    return max(0.0, pause - buffer * 8 / rate_bps)
