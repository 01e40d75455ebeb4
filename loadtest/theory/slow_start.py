"""TCP slow start without loss (RFC 5681 section 3.1, initial window of ten segments RFC 6928)."""

import math

#: Octets of one segment on a 1,500-octet path with time stamps (RFC 7323).
MSS = 1448
INITIAL_WINDOW = 10


def rounds(octets: int, mss: int = MSS, window: int = INITIAL_WINDOW) -> int:
    """Return round trips until *octets* have been delivered: ⌈log2(n / 10 + 1)⌉ for n segments."""
    segments = math.ceil(octets / mss)
    return math.ceil(math.log2(segments / window + 1)) if segments else 0


def transfer_ms(octets: int, rtt_ms: float) -> float:
    """Return milliseconds from the first byte to the last: every round but the first costs a round trip."""
    return rtt_ms * max(0, rounds(octets) - 1)
