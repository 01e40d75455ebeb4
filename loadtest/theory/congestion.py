"""Mean congestion window under random loss, for Reno (Mathis et al. 1997) and CUBIC (RFC 9438).

Both formulas assume exactly one loss in every 1/p packets.  With independent losses, some growth periods are longer,
and the mean window is slightly larger (`RENO_BY_CHANCE`, `CUBIC_BY_CHANCE`).  The connection is assumed to be long and
not limited by its receiver.  BBR does not treat loss as a congestion signal and follows neither formula.
"""

import math

from theory.slow_start import MSS

#: Mathis constant, √(3/2), for a sawtooth between W/2 and W that grows by one segment per round trip and has one loss
#: per tooth.
MATHIS = math.sqrt(1.5)
#: Mean window with independent losses divided by the mean window with evenly spaced losses.  Reno: 1.3098 / √p (Ott,
#: Kemperman, Mathis 1996, "The stationary behavior of ideal TCP congestion avoidance"); CUBIC: our own simulation.
RENO_BY_CHANCE, CUBIC_BY_CHANCE = 1.3098 / MATHIS, 1.23
#: Relative standard deviation of measured throughput divided by the model's, for a run with one loss; it decreases with
#: the square root of the number of losses.  Both values come from our own simulation with independent losses
#: (tests/theory/test_monte_carlo.py); CUBIC scatters most where it grows faster than Reno.
SCATTER = {"Reno": 0.15, "CUBIC": 0.45}
#: Constants of RFC 9438 section 5: growth in segments per second cubed, and share of the window kept after a loss.
CUBIC_C, CUBIC_BETA = 0.4, 0.7


def reno_window(loss: float) -> float:
    """Return Reno's mean congestion window in segments: 1.22 / √p."""
    return MATHIS / math.sqrt(loss)


def cubic_window(loss: float, rtt: float) -> float:
    """Return CUBIC's mean congestion window in segments (RFC 9438 section 5.1); at least Reno's (section 4.3)."""
    factor = math.pow(CUBIC_C * (3 + CUBIC_BETA) / (4 * (1 - CUBIC_BETA)), 0.25)
    return max(reno_window(loss), factor * math.pow(rtt / loss, 0.75))


def reno_window_by_chance(loss: float) -> float:
    """Return Reno's mean congestion window in segments if losses are independent."""
    return reno_window(loss) * RENO_BY_CHANCE


def cubic_window_by_chance(loss: float, rtt: float) -> float:
    """Return CUBIC's mean congestion window in segments if losses are independent; at least Reno's."""
    factor = CUBIC_BY_CHANCE * math.pow(CUBIC_C * (3 + CUBIC_BETA) / (4 * (1 - CUBIC_BETA)), 0.25)
    return max(reno_window_by_chance(loss), factor * math.pow(rtt / loss, 0.75))


def standard_error(name: str, losses: int) -> float:
    """Return the relative standard error of measured throughput divided by the model's for the measured loss rate.

    Args:
        name: ``Reno`` or ``CUBIC``.
        losses: number of losses during the measurement.
    """
    return SCATTER[name] / math.sqrt(max(1, losses))


def throughput_bps(window: float, rtt: float, mss: int = MSS) -> float:
    """Return the throughput in bits per second if *window* segments are sent per *rtt* seconds."""
    return window * mss * 8 / rtt


def reno_bps(loss: float, rtt: float, mss: int = MSS) -> float:
    """Return Reno's throughput in bits per second: 1.22 · MSS / (RTT · √p); *rtt* in seconds."""
    return throughput_bps(reno_window(loss), rtt, mss)


def cubic_bps(loss: float, rtt: float, mss: int = MSS) -> float:
    """Return CUBIC's throughput in bits per second; *rtt* in seconds."""
    return throughput_bps(cubic_window(loss, rtt), rtt, mss)
