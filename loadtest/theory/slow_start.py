"""TCP slow start without loss (RFC 5681 section 3.1; initial window of ten segments, RFC 6928).

Valid for plain TCP with Reno: a TLS handshake grows the window before the body, HyStart ends the growth early, BBR
paces.
"""

import math

#: Bytes of payload per segment with an MTU of 1,500 and TCP timestamps (RFC 7323).
MSS = 1448
INITIAL_WINDOW = 10


def rounds(size: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the round trips until *size* bytes are delivered: ⌈log2(n / w + 1)⌉ for n segments and a window of w.

    A warm connection, one that has carried data, has a larger *window* and needs fewer round trips.
    """
    segments = math.ceil(size / mss)
    return math.ceil(math.log2(segments / window + 1)) if segments else 0


def bytes_within(round_trips: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return how many bytes arrive within that many round trips: w · (2^r - 1) segments."""
    return window * ((1 << round_trips) - 1) * mss


def window_after(acknowledged: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the window in segments after *acknowledged* bytes: every acknowledged segment adds one."""
    return window + math.ceil(acknowledged / mss)


def transfer_ms(size: int, rtt_ms: float) -> float:
    """Return milliseconds from the first byte to the last: every round but the first takes a round trip."""
    return rtt_ms * max(0, rounds(size) - 1)
