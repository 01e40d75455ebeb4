"""How long a stream stands still after one loss: fast retransmit (RFC 5681, RFC 8985) or the timer (RFC 6298)."""

#: Seconds; Linux TCP_RTO_MIN, a fifth of what RFC 6298 section 2.4 says.
MIN_RTO = 0.2
#: Seconds before the first answer (RFC 6298 section 2.1).
INITIAL_RTO = 1.0
#: Linux ``tcp_syn_linear_timeouts`` and ``tcp_syn_retries``.
SYN_LINEAR, SYN_RETRIES = 4, 6


def fast_retransmit_s(rtt: float, interval: float = 0.0) -> float:
    """Return the seconds by which a lost segment comes late when others follow it.

    The next segment, *interval* seconds behind, tells; its acknowledgement needs a round trip, and RACK waits a quarter
    of one more, in case it was only reordered (RFC 8985 section 6.2).
    """
    return interval + 1.25 * rtt


def timeout_s(rtt: float, variation: float = 0.0) -> float:
    """Return the retransmission timeout after a steady *rtt*: RTT + max(200 ms, 4 · variation), as Linux computes it."""
    return rtt + max(MIN_RTO, 4 * variation)


def syn_times(linear: int = SYN_LINEAR, retries: int = SYN_RETRIES) -> list[float]:
    """Return the seconds at which an unanswered SYN is repeated: *linear* steps of one second, then doubling.

    The linear ones come on top of *retries* (Linux, ``tcp_write_timeout``); with 0 the list is RFC 6298's back-off.
    """
    times, now, timeout = [], 0.0, INITIAL_RTO
    for repeated in range(1, linear + retries + 1):
        now += timeout
        times.append(now)
        if repeated > linear:
            timeout *= 2
    return times
