"""How long one lost segment stalls a stream: fast retransmit (RFC 5681, RFC 8985) or the timer (RFC 6298)."""

#: Seconds; Linux's TCP_RTO_MIN, a fifth of the minimum in RFC 6298 section 2.4.
MIN_RTO = 0.2
#: Retransmission timeout in seconds before the first RTT sample (RFC 6298 section 2.1).
INITIAL_RTO = 1.0
#: Linux's ``tcp_syn_linear_timeouts`` and ``tcp_syn_retries``.
SYN_LINEAR, SYN_RETRIES = 4, 6


def fast_retransmit_s(rtt: float, interval: float = 0.0) -> float:
    """Return by how many seconds a lost segment is late if others follow it.

    The next segment, sent *interval* seconds later, reveals the loss; its acknowledgement takes a round trip, and RACK
    waits a quarter of one more in case of reordering (RFC 8985 section 6.2).
    """
    return interval + 1.25 * rtt


def timeout_s(rtt: float, variation: float = 0.0) -> float:
    """Return Linux's retransmission timeout after a steady *rtt*: RTT + max(200 ms, 4 · variation)."""
    return rtt + max(MIN_RTO, 4 * variation)


def syn_times(linear: int = SYN_LINEAR, retries: int = SYN_RETRIES) -> list[float]:
    """Return the seconds at which an unanswered SYN is retransmitted: *linear* steps of one second, then doubling.

    Linux adds the linear steps to *retries* (``tcp_write_timeout``); with none the list is RFC 6298's back-off.
    """
    times, now, timeout = [], 0.0, INITIAL_RTO
    for repeated in range(1, linear + retries + 1):
        now += timeout
        times.append(now)
        if repeated > linear:
            timeout *= 2
    return times
