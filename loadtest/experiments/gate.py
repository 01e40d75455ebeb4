"""Validity gates: a run on a machine that was not fit to measure proves nothing, in either direction."""

import socket
import time
from collections.abc import Iterable
from contextlib import closing

from experiments.recorders import Series
from experiments.result import Check
from hostfiles.layout import ADMIN_PORT

#: Share of one core above which the load generator itself may have limited what was measured.
MAX_CPU = 0.8
#: Connections of one calibration.
PROBES = 9
#: Counters of packets and connections dropped by a slow receiver; they must not rise unless they are the subject.
QUIET = ("Udp.RcvbufErrors", "TcpExt.ListenOverflows")


def round_trip_ms(address: str, port: int = ADMIN_PORT, probes: int = PROBES, timeout: float = 3.0) -> float:
    """Return the shortest of *probes* connect() times; a busy machine can only make one longer.  Blocking.

    Raises:
        OSError: the connection failed.
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
    """Check that a link has its configured round-trip time, within max(5 %, 1 ms)."""
    room = max(0.05 * configured_ms, 1.0)
    ok = abs(measured_ms - configured_ms) <= room
    return Check(f"link to {host}", f"{configured_ms:g} ms ± {room:.3g}", f"{measured_ms:.2f} ms", ok)


def generator(cpu_share: float) -> Check:
    """Check that the load generator had CPU to spare."""
    return Check("generator's CPU", f"< {MAX_CPU:.0%} of a core", f"{cpu_share:.0%}", cpu_share < MAX_CPU)


def quiet(series: dict[str, Series], subject: Iterable[str] = ()) -> Iterable[Check]:
    """Check that the `QUIET` counters of all hosts did not rise, except those in *subject*."""
    subject = set(subject)
    for name in QUIET:
        if name in subject or not series:
            continue
        risen = {host: int(each.rise(name)) for host, each in series.items() if each.rise(name) > 0}
        words = ", ".join(f"{host} {count}" for host, count in risen.items())
        yield Check(name, f"0 on {len(series)} hosts", words or "0", not risen)


def recorders(series: dict[str, Series]) -> Iterable[Check]:
    """Yield a failed check for each recorder that took 1 % of a core or more."""
    for host, each in series.items():
        seconds = each.times[-1] - each.times[0] if len(each.times) > 1 else 0.0
        if seconds > 1 and each.cost / seconds >= 0.01:
            yield Check(f"recorder of {host}", "< 1 % of a core", f"{each.cost / seconds:.1%}", ok=False)
