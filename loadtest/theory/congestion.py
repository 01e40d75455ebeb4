"""Mean congestion window under random loss: Reno (Mathis et al. 1997) and CUBIC (RFC 9438).

Both are derived for one loss in every 1/p packets.  Independent losses leave some growth periods long and yield a
little more (`RENO_BY_CHANCE`, `CUBIC_BY_CHANCE`).  The connection is long and not limited by its receiver.  BBR does
not treat loss as a congestion signal and follows neither formula.
"""

import math

from theory.slow_start import MSS

#: Square root of 3/2: a sawtooth between W/2 and W, one segment more per round trip, one loss per tooth.
MATHIS = math.sqrt(1.5)
#: Mean window with independent losses, relative to evenly spaced ones.  Reno: 1.3098 / √p (Ott, Kemperman, Mathis 1996,
#: "The stationary behavior of ideal TCP congestion avoidance"); CUBIC: from our own simulation.
RENO_BY_CHANCE, CUBIC_BY_CHANCE = 1.3098 / MATHIS, 1.23
#: RFC 9438 section 5: growth in segments per second cubed, and the share of the window kept after a loss.
CUBIC_C, CUBIC_BETA = 0.4, 0.7


def reno_window(loss: float) -> float:
    """Return Reno's mean window in segments: 1.22 / √p."""
    return MATHIS / math.sqrt(loss)


def cubic_window(loss: float, rtt: float) -> float:
    """Return CUBIC's mean window in segments (RFC 9438 section 5.1); never below Reno's (section 4.3)."""
    factor = math.pow(CUBIC_C * (3 + CUBIC_BETA) / (4 * (1 - CUBIC_BETA)), 0.25)
    return max(reno_window(loss), factor * math.pow(rtt / loss, 0.75))


def throughput_bps(window: float, rtt: float, mss: int = MSS) -> float:
    """Return bits per second if a *window* of segments is sent once per *rtt* seconds."""
    return window * mss * 8 / rtt


def reno_bps(loss: float, rtt: float, mss: int = MSS) -> float:
    """Return Reno's bits per second: 1.22 · MSS / (RTT · √p); *rtt* in seconds."""
    return throughput_bps(reno_window(loss), rtt, mss)


def cubic_bps(loss: float, rtt: float, mss: int = MSS) -> float:
    """Return CUBIC's bits per second; *rtt* in seconds."""
    return throughput_bps(cubic_window(loss, rtt), rtt, mss)
