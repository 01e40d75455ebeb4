"""The master's view of its workers and the hosts under load, as table rows; without sockets or a clock."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from generator import PHASES, Tally

#: Counters with a column, in the order of a connection's life.
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
#: Gauges: current values.  All other counters grow from the host's start.
LEVELS = {"tcp_tw", "tcp_inuse"}


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker reports about itself."""

    host: str
    #: Its network namespace: workers in one container share it.
    namespace: str
    #: CPU use as a share of a core.
    cpu: float
    #: 99th percentile in seconds of how late it sends; NaN while idle.
    lag_p99: float
    #: Why it lacks CPU; empty if it does not.
    reasons: list[str]
    #: As `linuxnet.counters.sample` gives them.
    counters: Mapping[str, float]
    #: Requests since the last report, from `Tally.as_json`.
    tally: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """Whether the worker is fit to measure, in words."""
        if math.isnan(self.lag_p99):
            return "idle"
        return f"STARVED: {'; '.join(self.reasons)}" if self.reasons else "fit"

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON for the master."""
        return asdict(self)


@dataclass(slots=True)
class Board:
    """Everything reported since the test began."""

    tally: Tally = field(default_factory=Tally)
    workers: dict[str, Report] = field(default_factory=dict)
    #: Counters of the hosts under load, by name.
    hosts: dict[str, Mapping[str, float]] = field(default_factory=dict)
    #: Workers that were lost during the test.
    gone: list[str] = field(default_factory=list)
    _first: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def take(self, worker: str, report: Report) -> None:
        """Store the report of *worker*."""
        self.workers[worker] = report
        self.tally.merge(Tally.from_json(report.tally))
        self._first.setdefault(_place(report), report.counters)

    def see(self, host: str, counters: Mapping[str, float]) -> None:
        """Store the counters of a host under load."""
        self.hosts[host] = counters
        self._first.setdefault(host, counters)

    def keep(self, alive: set[str]) -> None:
        """Remove the workers that are not *alive*; their measurements stay."""
        for worker in self.workers.keys() - alive:
            del self.workers[worker]
            self.gone.append(worker)

    def restart(self) -> None:
        """Start over for a new test."""
        self.tally = Tally()
        self.gone.clear()
        self._first = dict(self.hosts)
        self._first |= {_place(each): each.counters for each in self.workers.values()}

    @property
    def starved(self) -> list[str]:
        """Workers that lack CPU, with the reasons."""
        return [
            f"{short(name)}: {'; '.join(each.reasons)}" for name, each in sorted(self.workers.items()) if each.reasons
        ]

    def kernel_rows(self) -> list[dict[str, Any]]:
        """Return a row for each network namespace of workers, and for each host under load."""
        places: dict[str, list[Report]] = {}
        for report in self.workers.values():
            places.setdefault(_place(report), []).append(report)
        rows = [
            self._row(f"{each[0].host} ({len(each)} worker{'s' if len(each) > 1 else ''})", place, each[-1].counters)
            for place, each in sorted(places.items())
        ]
        return rows + [self._row(host, host, counters) for host, counters in sorted(self.hosts.items())]

    def generator_rows(self) -> list[dict[str, Any]]:
        """Return a row for each worker with its fitness to measure."""
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
        """Return a row for each kind of connection and phase, in milliseconds with microsecond resolution."""
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
    """Return a short form of Locust's worker id, which is the host name and 32 digits."""
    host, _, digits = worker.rpartition("_")
    return f"{host} {digits[:4]}" if host else worker


def column(key: str) -> str:
    """Return a column key for a counter: Locust's web page changes dots and capitals."""
    return key.replace(".", "_").lower()


def _place(report: Report) -> str:
    return f"{report.host} {report.namespace}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
