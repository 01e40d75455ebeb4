"""The board, on which Locust's master collects the reports of its workers and the counters of the hosts under load.

The board returns this data as table rows.  It uses neither sockets nor a clock.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from generator import PHASES, Tally

#: Counters that the kernel table shows, with their column titles, in the order of a connection's life.
COLUMNS = (
    ("tcp_tw", "TIME-WAIT"),
    ("tcp_inuse", "TCP in use"),
    ("Tcp.ActiveOpens", "Opened"),
    ("Tcp.PassiveOpens", "Accepted"),
    ("Tcp.EstabResets", "Reset"),
    ("Tcp.RetransSegs", "Retransmitted"),
    ("TcpExt.TW", "Waits started"),
    ("TcpExt.TWRecycled", "Waits reused"),
    ("TcpExt.ListenOverflows", "Accept queue full"),
    ("Udp.RcvbufErrors", "UDP dropped"),
)
#: Gauges, which are shown as current values; for all other counters, the growth since the test began is shown.
LEVELS = {"tcp_tw", "tcp_inuse"}


@dataclass(frozen=True, slots=True)
class Report:
    """A periodic report of one worker: its fitness to measure, its kernel counters, and its requests."""

    host: str
    #: Network namespace of the worker; all workers in one container share it.
    namespace: str
    #: CPU use, as a share of one core.
    cpu: float
    #: 99th percentile of the send lag in seconds; NaN if the worker is idle.
    lag_p99: float
    #: Limits of `Starvation` that the worker exceeds, as text; empty if it has enough CPU time.
    reasons: list[str]
    #: Kernel counters, from `linuxnet.counters.sample`.
    counters: Mapping[str, float]
    #: Requests completed since the previous report, from `Tally.as_json`.
    tally: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """Fitness of the worker to measure, as text: "idle", "fit", or "STARVED" with the reasons."""
        if math.isnan(self.lag_p99):
            return "idle"
        return f"STARVED: {'; '.join(self.reasons)}" if self.reasons else "fit"

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data, to be sent to the master."""
        return asdict(self)


@dataclass(slots=True)
class Board:
    """All data reported by workers and by the hosts under load since the test began."""

    tally: Tally = field(default_factory=Tally)
    workers: dict[str, Report] = field(default_factory=dict)
    #: Kernel counters of the hosts under load, keyed by host name.
    hosts: dict[str, Mapping[str, float]] = field(default_factory=dict)
    #: IDs of the workers that were lost during the test.
    gone: list[str] = field(default_factory=list)
    _first: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def take(self, worker: str, report: Report) -> None:
        """Store a report of *worker* and add its requests to the tally."""
        self.workers[worker] = report
        self.tally.merge(Tally.from_json(report.tally))
        self._first.setdefault(_place(report), report.counters)

    def see(self, host: str, counters: Mapping[str, float]) -> None:
        """Store the kernel counters of a host under load."""
        self.hosts[host] = counters
        self._first.setdefault(host, counters)

    def keep(self, alive: set[str]) -> None:
        """Remove the workers whose ID is not in *alive*; their requests remain in the tally."""
        for worker in self.workers.keys() - alive:
            del self.workers[worker]
            self.gone.append(worker)

    def restart(self) -> None:
        """Clear the tally for a new test; the current counters become the base from which growth is computed."""
        self.tally = Tally()
        self.gone.clear()
        self._first = dict(self.hosts)
        self._first |= {_place(each): each.counters for each in self.workers.values()}

    @property
    def starved(self) -> list[str]:
        """One description, with the reasons, for each worker that lacks CPU time."""
        return [
            f"{short(name)}: {'; '.join(each.reasons)}" for name, each in sorted(self.workers.items()) if each.reasons
        ]

    def kernel_rows(self) -> list[dict[str, Any]]:
        """Return one row of kernel counters per network namespace of workers, and one per host under load."""
        places: dict[str, list[Report]] = {}
        for report in self.workers.values():
            places.setdefault(_place(report), []).append(report)
        rows = [
            self._row(f"{each[0].host} ({len(each)} worker{'s' if len(each) > 1 else ''})", place, each[-1].counters)
            for place, each in sorted(places.items())
        ]
        return rows + [self._row(host, host, counters) for host, counters in sorted(self.hosts.items())]

    def generator_rows(self) -> list[dict[str, Any]]:
        """Return one row per worker, with its CPU use, send lag and fitness to measure."""
        return [
            {
                "worker": short(name),
                "host": each.host,
                "cpu": f"{each.cpu:.0%}",
                "lag": "" if math.isnan(each.lag_p99) else _ms(each.lag_p99),
                "verdict": each.verdict,
            }
            for name, each in sorted(self.workers.items())
        ]

    def phase_rows(self) -> list[dict[str, Any]]:
        """Return one row of percentiles per kind of connection and phase, in milliseconds with three decimals."""
        kinds = sorted(self.tally.ok | {kind: 1 for kind, _ in self.tally.errors})
        rows = []
        for kind in kinds:
            for phase in ("latency", *PHASES):
                times = self.tally.times.get((kind, phase))
                if times is not None and len(times):
                    row = {"kind": kind, "phase": phase.replace("_", " "), "count": len(times)}
                    row |= {f"p{q}".replace(".", ""): _ms(times.percentile(q)) for q in (50, 90, 99, 99.9)}
                    rows.append({**row, "max": _ms(times.largest)})
        return rows

    def _row(self, host: str, place: str, counters: Mapping[str, float]) -> dict[str, Any]:
        first = self._first.get(place, {})
        row: dict[str, Any] = {"host": host}
        for key, _ in COLUMNS:
            value = counters.get(key, 0)
            row[column(key)] = int(value if key in LEVELS else value - first.get(key, 0))
        return row


def short(worker: str) -> str:
    """Return a short form of a Locust worker ID: the host name and the first 4 of its 32 hexadecimal digits."""
    host, _, digits = worker.rpartition("_")
    return f"{host} {digits[:4]}" if host else worker


def column(key: str) -> str:
    """Return the column key for a counter: in lower case and without dots, as Locust's web page requires."""
    return key.replace(".", "_").lower()


def _place(report: Report) -> str:
    return f"{report.host} {report.namespace}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
