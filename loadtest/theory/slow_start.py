"""TCP slow start without loss (RFC 5681 section 3.1, initial window of ten segments RFC 6928).

Plain TCP with Reno: a TLS handshake grows the window before the body, HyStart ends the growth early, BBR paces.
"""

import math

#: Octets of one segment on a 1,500-octet path with time stamps (RFC 7323).
MSS = 1448
INITIAL_WINDOW = 10


def rounds(octets: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return round trips until *octets* have been delivered: ⌈log2(n / w + 1)⌉ for n segments and a window of w.

    A connection that has carried data is warm: its *window* has grown, and the same octets take fewer rounds.
    """
    segments = math.ceil(octets / mss)
    return math.ceil(math.log2(segments / window + 1)) if segments else 0


def octets_within(round_trips: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return how many octets arrive within so many round trips: w · (2^r - 1) segments."""
    return window * ((1 << round_trips) - 1) * mss


def window_after(octets: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return the window in segments after *octets* were delivered and acknowledged: each segment adds one."""
    return window + math.ceil(octets / mss)


def transfer_ms(octets: int, rtt_ms: float) -> float:
    """Return milliseconds from the first byte to the last: every round but the first costs a round trip."""
    return rtt_ms * max(0, rounds(octets) - 1)
