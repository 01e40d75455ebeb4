"""How long one lost segment delays a stream until fast retransmit (RFC 5681, RFC 8985) or a time-out (RFC 6298)."""

#: Linux's minimum retransmission timeout (TCP_RTO_MIN) in seconds, a fifth of the minimum in RFC 6298 section 2.4.
MIN_RTO = 0.2
#: Retransmission timeout before the first RTT sample, in seconds (RFC 6298 section 2.1).
INITIAL_RTO = 1.0
#: Linux's default ``tcp_syn_linear_timeouts`` and ``tcp_syn_retries``, in retransmissions of a SYN.
SYN_LINEAR, SYN_RETRIES = 4, 6


def timeout_s(rtt: float, variation: float = 0.0) -> float:
    """Return Linux's retransmission timeout in seconds for a constant *rtt*: RTT + max(200 ms, 4 · variation)."""
    return rtt + max(MIN_RTO, 4 * variation)


def lost_message_s(rtt: float, interval: float) -> float:
    """Return the additional delay in seconds of one lost message, if a small message is sent every *interval* seconds.

    The acknowledgement of a later message reveals the loss once that message was sent a quarter of a round trip after
    the lost one (RACK's reordering window), or once three later messages are acknowledged (RFC 8985 sections 6.2 and
    7).  If no message follows in time, the loss is repaired by the retransmission timer or the tail loss probe,
    whichever is first; with a single segment in flight, Linux delays the probe until the timer is due.
    """
    return rtt + min(max(interval, min(rtt / 4, 3 * interval)), MIN_RTO)


def syn_times(linear: int = SYN_LINEAR, retries: int = SYN_RETRIES) -> list[float]:
    """Return the times in seconds at which a SYN is retransmitted: *linear* steps of one second, then doubling.

    Linux adds the linear steps to *retries* (``tcp_write_timeout``).  Without linear steps, the result is the
    exponential back-off of RFC 6298.
    """
    times, now, timeout = [], 0.0, INITIAL_RTO
    for repeated in range(1, linear + retries + 1):
        now += timeout
        times.append(now)
        if repeated > linear:
            timeout *= 2
    return times
