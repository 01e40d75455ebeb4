"""TCP slow start without loss (RFC 5681 section 3.1; initial window of ten segments, RFC 6928).

The model is valid for Reno without TLS: a TLS handshake increases the window before the body is sent, HyStart ends slow
start early, and BBR paces its packets.
"""

import math

#: Payload bytes per segment with an MTU of 1,500 bytes and TCP timestamps (RFC 7323).
MSS = 1448
INITIAL_WINDOW = 10


def rounds(size: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the number of round trips for *size* bytes: ⌈log2(n / w + 1)⌉ for n segments and a window of w segments.

    A warm connection, which has carried data before, has a larger *window* and needs fewer round trips.
    """
    segments = math.ceil(size / mss)
    return math.ceil(math.log2(segments / window + 1)) if segments else 0


def bytes_within(round_trips: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the number of bytes that arrive within *round_trips*: w · (2^r - 1) segments."""
    return window * ((1 << round_trips) - 1) * mss


def window_after(acknowledged: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the window in segments after *acknowledged* bytes: every acknowledged segment increases it by one."""
    return window + math.ceil(acknowledged / mss)


def transfer_ms(size: int, rtt_ms: float) -> float:
    """Return the time in ms from the first byte to the last: one round trip for each round except the first."""
    return rtt_ms * max(0, rounds(size) - 1)
