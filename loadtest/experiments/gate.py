"""Validity gates: checks that the machine was fit to measure; a run that fails any of them is invalid."""

import socket
import time
from collections.abc import Iterable
from contextlib import closing
from itertools import pairwise

from experiments.recorders import HERE, HZ, Series
from experiments.result import Check
from hostfiles.layout import ADMIN_PORT

#: Maximum CPU use of the load generator, as a share of one core; above it, the generator may be the bottleneck.
MAX_CPU = 0.8
#: Number of connections opened to calibrate one link.
PROBES = 9
#: Counters of packets and connections that slow receivers dropped.  A rise makes the run invalid, unless the experiment
#: studies these drops.
QUIET = ("Udp.RcvbufErrors", "TcpExt.ListenOverflows")

#: Largest delay of the load generator's wake-ups (95th percentile) with which a failed check counts, in seconds.  On an
#: idle machine the delay is 1 to 5 ms; when four programs share a core, it is 10 to 30 ms.
MAX_DELAY = 0.01
#: Number of wake-ups needed to judge their delay.
WAKE_UPS = 50


def round_trip_ms(address: str, port: int = ADMIN_PORT, probes: int = PROBES, timeout: float = 3.0) -> float:
    """Return the shortest duration of *probes* connect() calls in milliseconds; block until all calls have returned.

    The shortest is the best estimate of the round-trip time, since a busy machine can only make a call take longer.

    Raises:
        OSError: a connection failed or timed out after *timeout* seconds.
    """
    taken = []
    for _ in range(probes):
        with closing(socket.socket()) as sock:
            sock.settimeout(timeout)
            began = time.perf_counter()
            sock.connect((address, port))
            taken.append((time.perf_counter() - began) * 1000)
    return min(taken)


def calibration(host: str, configured_ms: float, measured_ms: float) -> Check:
    """Check that the measured round-trip time to *host* is within max(5 %, 1 ms) of the configured one."""
    room = max(0.05 * configured_ms, 1.0)
    ok = abs(measured_ms - configured_ms) <= room
    return Check(f"link to {host}", f"{configured_ms:g} ms ± {room:.3g}", f"{measured_ms:.2f} ms", ok)


def generator(cpu_share: float) -> Check:
    """Check that the load generator used less than `MAX_CPU` of a core."""
    return Check("generator's CPU", f"< {MAX_CPU:.0%} of a core", f"{cpu_share:.0%}", cpu_share < MAX_CPU)


def quiet(series: dict[str, Series], subject: Iterable[str] = ()) -> Iterable[Check]:
    """Yield, for each `QUIET` counter, a check that it did not rise on any host; counters in *subject* are exempt."""
    subject = set(subject)
    for name in QUIET:
        if name in subject or not series:
            continue
        risen = {host: int(each.rise(name)) for host, each in series.items() if each.rise(name) > 0}
        words = ", ".join(f"{host} {count}" for host, count in risen.items())
        yield Check(name, f"0 on {len(series)} hosts", words or "0", not risen)


def recorders(series: dict[str, Series]) -> Iterable[Check]:
    """Yield a failed check for each recorder that used 1 % of a core or more."""
    for host, each in series.items():
        seconds = each.times[-1] - each.times[0] if len(each.times) > 1 else 0.0
        if seconds > 1 and each.cost / seconds >= 0.01:
            yield Check(f"recorder of {host}", "< 1 % of a core", f"{each.cost / seconds:.1%}", ok=False)


def punctual(series: dict[str, Series]) -> Iterable[Check]:
    """Yield a failed check if the load generator woke up late too often, because the machine was busy.

    The recorder of the load generator wakes up at regular intervals, so a longer interval between two of its samples
    means a delay.  The last interval does not count, because the recording may end at any time.
    """
    if HERE not in series:
        return
    late = sorted(max(0.0, b - a - 1 / HZ) for a, b in pairwise(series[HERE].times[:-1]))
    if len(late) >= WAKE_UPS and (delay := late[int(0.95 * len(late))]) > MAX_DELAY:
        text = "delay of the load generator's wake-ups, 95th percentile"
        yield Check(text, f"<= {1000 * MAX_DELAY:g} ms, or no check fails", f"{1000 * delay:.1f} ms", ok=False)
