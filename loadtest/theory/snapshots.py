"""How old a snapshot is when it is looked at: over UDP, where the lost are skipped, and TCP, where all wait for them.

A sender emits the whole state every Δ; d is the one-way delay, p the loss of each packet.  Age is time since the newest
snapshot at hand was sent, seen at a random moment (G. Fiedler, "UDP vs. TCP").
"""

import math

from theory.recovery import fast_retransmit_s


def udp_age(delay: float, interval: float, loss: float) -> float:
    """Return the mean age in seconds: d + Δ(1 + p) / (2(1 - p)), the mean residual of a geometric gap.

    Args:
        delay: one way, seconds.
        interval: seconds between two snapshots.
        loss: probability, below 1.
    """
    return delay + interval * (1 + loss) / (2 * (1 - loss))


def udp_age_exceeds(excess: float, interval: float, loss: float) -> float:
    """Return the probability that a snapshot is older than the one-way delay by more than *excess* seconds."""
    missed, rest = divmod(excess / interval, 1)
    return math.pow(loss, missed) * (1 - (1 - loss) * rest)


def udp_age_quantile(delay: float, interval: float, loss: float, quantile: float) -> float:
    """Return the age in seconds that a share *quantile* of looks does not exceed."""
    beyond = 1 - quantile
    missed = math.floor(math.log(beyond) / math.log(loss)) if loss > 0 and beyond < loss else 0
    return delay + interval * (missed + (1 - beyond / loss**missed) / (1 - loss))


def tcp_age(delay: float, interval: float, loss: float) -> float:
    """Return the mean age in seconds over TCP: d + Δ/2 + p · D(D + Δ) / 2Δ.

    One loss stops the stream for D = Δ + 1.25 RTT (fast retransmit, RFC 8985).  While it stands, what would have been
    seen is missing one snapshot after the other: x seconds into it, ⌊x/Δ⌋ + 1 of them, each worth Δ of age.  Where Δ is
    far below D that is the well-known p · D² / 2Δ.  Good while p · D/Δ is far below 1: beyond, stops overlap.
    """
    stop = fast_retransmit_s(2 * delay, interval)
    whole, rest = divmod(stop, interval)
    missing = interval**2 * whole * (whole + 1) / 2 + rest * interval * (whole + 1)
    return delay + interval / 2 + loss * missing / interval
