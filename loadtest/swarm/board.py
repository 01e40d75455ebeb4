"""What the master knows of its workers and of the hosts they load: rows for the web page.  No socket, no clock of its own."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from generator import PHASES, Tally

#: Counters with a column, in the order of a connection's life: each belongs to a mechanism that the lab shows.
COLUMNS = (
    ("tcp_tw", "TIME-WAIT"),
    ("tcp_inuse", "TCP in use"),
    ("Tcp.ActiveOpens", "Opened"),
    ("Tcp.PassiveOpens", "Accepted"),
    ("Tcp.EstabResets", "Reset"),
    ("Tcp.RetransSegs", "Retransmitted"),
    ("TcpExt.TW", "Waits begun"),
    ("TcpExt.TWRecycled", "Waits reused"),
    ("TcpExt.ListenOverflows", "Accept queue full"),
    ("Udp.RcvbufErrors", "UDP dropped"),
)
#: Counters that say how many there are now; all others have grown since the host started.
LEVELS = {"tcp_tw", "tcp_inuse"}


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker says of itself."""

    host: str
    #: Its network namespace.
    namespace: str
    #: Share of a core.
    cpu: float
    #: Seconds.
    lag_p99: float
    #: Why it is starved; empty when it is not.
    reasons: list[str]
    #: As `linuxnet.counters.sample` gives them.
    counters: Mapping[str, float]
    #: New requests, as `Tally.as_json` gives them.
    tally: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it for the master."""
        return asdict(self)


@dataclass(slots=True)
class Board:
    """All that came in since the test began."""

    tally: Tally = field(default_factory=Tally)
    workers: dict[str, Report] = field(default_factory=dict)
    #: Counters of the hosts that are loaded, by name.
    hosts: dict[str, Mapping[str, float]] = field(default_factory=dict)
    #: Workers that went away during the test.
    gone: list[str] = field(default_factory=list)
    _first: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def take(self, worker: str, report: Report) -> None:
        """Take what *worker* says."""
        self.workers[worker] = report
        self.tally.merge(Tally.from_json(report.tally))
        self._first.setdefault(_place(report), report.counters)

    def see(self, host: str, counters: Mapping[str, float]) -> None:
        """Take the counters of a host that is loaded."""
        self.hosts[host] = counters
        self._first.setdefault(host, counters)

    def keep(self, alive: set[str]) -> None:
        """Take workers off that are not among *alive*; what they measured stays."""
        for worker in self.workers.keys() - alive:
            del self.workers[worker]
            self.gone.append(worker)

    def restart(self) -> None:
        """Begin anew: a test starts."""
        self.tally = Tally()
        self.gone.clear()
        self._first = dict(self.hosts)
        self._first |= {_place(each): each.counters for each in self.workers.values()}

    @property
    def starved(self) -> list[str]:
        """Workers that lack CPU, and why."""
        return [
            f"{short(name)}: {'; '.join(each.reasons)}" for name, each in sorted(self.workers.items()) if each.reasons
        ]

    def kernel_rows(self) -> list[dict[str, Any]]:
        """Return a row for each network namespace: of the workers, which share one if they share a container, and of hosts."""
        places: dict[str, list[Report]] = {}
        for report in self.workers.values():
            places.setdefault(_place(report), []).append(report)
        rows = [
            self._row(
                f"{reports[0].host} ({len(reports)} worker{'s' if len(reports) > 1 else ''})",
                place,
                reports[-1].counters,
            )
            for place, reports in sorted(places.items())
        ]
        return rows + [self._row(host, host, counters) for host, counters in sorted(self.hosts.items())]

    def generator_rows(self) -> list[dict[str, Any]]:
        """Return a row for each worker: is it fit to measure?"""
        return [
            {
                "worker": short(name),
                "host": each.host,
                "cpu": f"{each.cpu:.0%}",
                "lag": "" if math.isnan(each.lag_p99) else _ms(each.lag_p99),
                "verdict": "idle"
                if math.isnan(each.lag_p99)
                else "STARVED: " + "; ".join(each.reasons)
                if each.reasons
                else "fit",
            }
            for name, each in sorted(self.workers.items())
        ]

    def phase_rows(self) -> list[dict[str, Any]]:
        """Return a row for each kind of connection and phase, in exact milliseconds."""
        kinds = sorted(self.tally.ok | {kind: 1 for kind, _ in self.tally.errors})
        rows = []
        for kind in kinds:
            for phase in ("latency", *PHASES):
                times = self.tally.times.get((kind, phase))
                if times is not None and len(times):
                    quantiles = {f"p{q}".replace(".", ""): _ms(times.percentile(q)) for q in (50, 90, 99, 99.9)}
                    rows.append(
                        {
                            "kind": kind,
                            "phase": phase.replace("_", " "),
                            "count": len(times),
                            **quantiles,
                            "max": _ms(times.largest),
                        }
                    )
        return rows

    def _row(self, host: str, place: str, counters: Mapping[str, float]) -> dict[str, Any]:
        first = self._first.get(place, {})
        row: dict[str, Any] = {"host": host}
        for key, _ in COLUMNS:
            value = counters.get(key, 0)
            row[column(key)] = int(value if key in LEVELS else value - first.get(key, 0))
        return row


def short(worker: str) -> str:
    """Return a worker's id as a person reads it: Locust's is the host's name and 32 digits."""
    host, _, digits = worker.rpartition("_")
    return f"{host} {digits[:4]}" if host else worker


def column(key: str) -> str:
    """Return a counter's name as Locust's web page can take it: it turns dots and capitals into something else."""
    return key.replace(".", "_").lower()


def _place(report: Report) -> str:
    return f"{report.host} {report.namespace}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
