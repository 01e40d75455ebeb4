"""State of the lab as observed by the console: records poll results and returns a JSON snapshot with alarms.

Sans-IO.  Times are in seconds since the epoch, from the console's own clock.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from console.hosts import Host, Hosts
from console.snapshot import snapshot
from console.track import Sample, Track

#: Number of consecutive unanswered polls after which a host counts as down.  A busy machine may cause a single one.
MISSES = 2
#: Seconds after the console's start during which a host that has not yet responded does not cause an alarm.
BOOT = 20.0
#: Maximum number of events to keep, newest first.
EVENTS = 30


class State:
    """Recorded data of all hosts, recent events, the last trace and the latest experiment runs."""

    def __init__(self, hosts: Hosts, started: float) -> None:
        self.hosts, self.started = hosts, started
        self.tracks = {host.name: Track(host) for host in hosts.hosts}
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        #: The last trace and the time at which it was received; None before the first trace.
        self.trace: dict[str, Any] | None = None
        #: The latest experiment runs, newest first.
        self.reports: list[dict[str, Any]] = []

    def observe(self, sample: Sample) -> None:
        """Record the result of polling one host."""
        if (track := self.tracks.get(sample.host)) is None:
            return  # the host has left the lab since this poll began
        if sample.error is not None:
            self._missed(track, sample.at, sample.error)
            return
        if track.host.role == "wan" and track.status == "down":
            # The router has recovered, so reset the hosts that became unreachable together with it.
            for other in self.tracks.values():
                if other.hidden:
                    other.status, other.misses, other.hidden = "waiting", 0, False
        if track.status == "down" and track.seen and not track.hidden:
            self._event(sample.at, track.host, f"is back after {_span(sample.at - track.since)}", "good")
        status = "ok" if sample.health.get("status") == "ok" else "failing"
        if status != track.status:
            if status == "failing" and track.seen:
                self._event(sample.at, track.host, "fails its health checks", "bad")
            elif track.status == "failing" and track.seen:
                self._event(sample.at, track.host, "is healthy again", "good")
            track.status, track.since = status, sample.at
        track.take(sample)

    def _missed(self, track: Track, at: float, error: str) -> None:
        track.misses += 1
        track.error = error
        if track.misses == 1:
            track.first_miss = at
        booting = not track.seen and at < self.started + BOOT
        if track.status == "down" or track.misses < MISSES or booting:
            return
        track.status, track.since = "down", track.first_miss
        track.hidden = self.is_behind_router(track)
        if not track.hidden:
            what = f"is down: {error}" if track.seen else "has not answered"
            self._event(track.first_miss, track.host, what, "bad")

    def is_behind_router(self, track: Track) -> bool:
        """Return whether the host can be reached from the console only through a router that is down."""
        routers = [other for other in self.tracks.values() if other.host.role == "wan"]
        return (
            bool(routers)
            and all(router.status == "down" for router in routers)
            and track.host.region not in {router.host.region for router in routers}
        )

    def _event(self, at: float, host: Host, text: str, level: str) -> None:
        self.events.appendleft({"at": at, "host": host.name, "text": text, "level": level})

    def take_trace(self, trace: Mapping[str, Any], at: float) -> None:
        """Store *trace*, received at time *at*, as the trace to show."""
        self.trace = {"at": at, "trace": dict(trace)}

    def take_reports(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Store *reports*, newest first, as the experiment runs to show."""
        self.reports = [dict(report) for report in reports]

    def admit(self, host: Host) -> None:
        """Start to observe *host*, which has joined the lab."""
        others = tuple(each for each in self.hosts.hosts if each.name != host.name)
        self.hosts = replace(self.hosts, hosts=(*others, host))
        self.tracks[host.name] = Track(host)

    def dismiss(self, name: str) -> None:
        """Stop observing the host called *name*, which has left the lab; ignore unknown names."""
        self.hosts = replace(self.hosts, hosts=tuple(each for each in self.hosts.hosts if each.name != name))
        self.tracks.pop(name, None)

    def admin_paths(self, host: Host) -> tuple[str, ...]:
        """Return the paths of the admin requests for *host*."""
        return self.tracks[host.name].admin_paths

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return the page's data at time *now*, except for the trace."""
        unseen = frozenset(
            name
            for name, track in self.tracks.items()
            if (track.status == "down" or track.misses) and self.is_behind_router(track)
        )
        return {
            "now": now,
            "started": self.started,
            **snapshot(self.hosts, list(self.tracks.values()), unseen, now),
            "events": list(self.events),
            "reports": self.reports,
            "trace_at": None if self.trace is None else self.trace["at"],
        }

    def __repr__(self) -> str:
        counts = sorted(Counter(track.status for track in self.tracks.values()).items())
        return f"<State {' '.join(f'{status}={count}' for status, count in counts)}>"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
