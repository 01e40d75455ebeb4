"""Age of the newest game snapshot, over UDP (lost snapshots are skipped) and TCP (later snapshots are delayed).

A sender transmits the whole state every Δ seconds; d is the one-way delay, p the loss probability of a packet.  The age
is the time since the newest available snapshot was sent, observed at a random moment (G. Fiedler, "UDP vs. TCP").
"""

import math

from theory.recovery import lost_message_s


def udp_age(delay: float, interval: float, loss: float) -> float:
    """Return the mean age in seconds: d + Δ(1 + p) / (2(1 - p)).

    The second term is the mean residual time of a gap with geometrically distributed length.

    Args:
        delay: d, the one-way delay in seconds.
        interval: Δ, the time between two snapshots in seconds.
        loss: p, the loss probability of a packet, below 1.
    """
    return delay + interval * (1 + loss) / (2 * (1 - loss))


def udp_age_exceeds(excess: float, interval: float, loss: float) -> float:
    """Return the probability that the age of a snapshot exceeds the one-way delay by more than *excess* seconds."""
    missed, rest = divmod(excess / interval, 1)
    return math.pow(loss, missed) * (1 - (1 - loss) * rest)


def udp_age_quantile(delay: float, interval: float, loss: float, quantile: float) -> float:
    """Return the *quantile* of the snapshot age in seconds."""
    beyond = 1 - quantile
    missed = math.floor(math.log(beyond) / math.log(loss)) if loss > 0 and beyond < loss else 0
    return delay + interval * (missed + (1 - beyond / loss**missed) / (1 - loss))


def tcp_age(delay: float, interval: float, loss: float) -> float:
    """Return the mean age in seconds over TCP: d + Δ/2 + p · D(D + Δ) / 2Δ.

    One loss stalls the stream for D = RTT + max(Δ, RTT/4), or less if Δ is tiny (`recovery.lost_message_s`).  At x
    seconds into the stall, ⌊x/Δ⌋ + 1 snapshots are missing, each of which adds Δ to the age.  If Δ is far below D, the
    last term is approximately the well-known p · D² / 2Δ.  The formula is valid while p · D/Δ is far below 1; otherwise
    stalls overlap.  It assumes that the congestion window never delays a snapshot.
    """
    stop = lost_message_s(2 * delay, interval)
    whole, rest = divmod(stop, interval)
    missing = interval**2 * whole * (whole + 1) / 2 + rest * interval * (whole + 1)
    return delay + interval / 2 + loss * missing / interval
