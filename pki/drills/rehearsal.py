"""Measures a drill with steady load, the outside prober and the hosts' reports, on one timeline."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from drills.watch import Watch
from experiments import Lane, Panel, Run, Span
from generator import Histogram, Load, Request, Target
from hostfiles.layout import TRUST_ANCHOR
from monitor.openssl import Prober
from reports.load_picture import time_line

#: Lab host whose certificate the drills affect, and its DNS name for clients.
HOST, NAME = "edge", "www.example.com"
#: Validity gate: minimum fraction of the scheduled requests that must be sent.
MIN_SENT = 0.99
#: Validity gate: maximum 99th percentile of the send lag (delay of requests after their scheduled time), in seconds.
#: `MAX_LAG` is for drills that count lost requests, `PROMPT` for drills that check latency, and `CONTROL_LAG` for
#: negative controls, which lose hundreds of requests even on a busy machine.
MAX_LAG, PROMPT, CONTROL_LAG = 2.0, 0.025, 5.0
#: Kinds of timeline events that a chart shows as vertical lines.
SHOWN = ("injection", "undone")
#: Maximum gap between equal probe results that a chart merges into one stripe, in seconds.
STRIPE_GAP = 1.6


@dataclass(slots=True)
class Rehearsal:
    """Load, probes and monitoring during a drill that affects the certificates of *hosts*."""

    run: Run
    #: Load in requests per second: half on new connections, half on a keep-alive connection.
    rate: float
    hosts: Sequence[str] = (HOST,)
    name: str = NAME
    port: int = 443
    #: URL path of the load's requests.
    path: str = "/items"
    requests: list[Request] = field(default_factory=list)
    lag: Histogram = field(default_factory=Histogram)
    #: Wall-clock time at which the run's timeline began, in seconds since the epoch.
    epoch: float = 0.0
    #: The load; None before `under_load` starts it.
    load: Load | None = None
    watch: Watch = field(init=False)
    prober: Prober = field(init=False)
    #: When the load first received each serial number, in seconds on the run's timeline.
    _seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch(self.run, self.hosts)
        self.prober = Prober(self.name, TRUST_ANCHOR, self.port)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Run the load, the prober and the monitoring during an ``async with`` block; then store the requests."""
        if not Prober.available():
            self.run.skip("openssl is not installed: the outside prober needs it")
        self.epoch = time.time() - self.run.now()
        target, stop = Target(self.name, self.port, self.path, TRUST_ANCHOR), asyncio.Event()
        load = self.load = Load(target, self.rate, on_done=self._done)
        began = self.run.now()
        running = [
            asyncio.create_task(load.run(stop)),
            asyncio.create_task(self.prober.run(self.run.now, stop)),
            asyncio.create_task(self.watch.run_until(stop)),
        ]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
            self.lag = load.lag()
            for each in load.requests:  # convert times from the load's start to the run's timeline
                each.intended, each.sent, each.done = (began + t for t in (each.intended, each.sent, each.done))
            self.requests = load.requests

    def _done(self, request: Request) -> None:
        if request.serial:
            self._seen.setdefault(request.serial, self.run.now())

    def first_seen(self) -> dict[str, float]:
        """Return when the load or the prober first received each serial number, even while the load is running."""
        found = dict(self._seen)
        for probe in self.prober.probes:
            if probe.serial:
                found[probe.serial] = min(found.get(probe.serial, probe.at), probe.at)
        return found

    # --- queries ----------------------------------------------------------------------------------------------------

    def at(self, epoch: float) -> float:
        """Convert seconds since the epoch to seconds on the run's timeline."""
        return epoch - self.epoch

    def lost(self, since: float = 0.0, until: float = float("inf")) -> list[Request]:
        """Return the failed requests sent from *since* until *until*, in seconds on the run's timeline."""
        return [r for r in self.requests if r.error and since <= r.sent < until]

    def fresh(self, since: float, until: float) -> list[Request]:
        """Return the requests on new connections that were sent and completed between *since* and *until*."""
        return [r for r in self.requests if r.kind == "fresh" and since <= r.sent and r.done < until]

    def latency(self, when: Callable[[float], bool]) -> Histogram:
        """Return the latencies, in seconds, of successful requests whose scheduled time satisfies *when*."""
        return Histogram(r.latency for r in self.requests if not r.error and when(r.intended))

    def failed_probes(self, since: float = 0.0, until: float = float("inf")) -> list[str]:
        """Return the errors of the outside prober's connections that started from *since* until *until*."""
        return [p.error for p in self.prober.probes if p.error and since <= p.at < until]

    def seen(self) -> set[str]:
        """Return the serial numbers of all certificates that the load or the outside prober received."""
        return {r.serial for r in self.requests if r.serial} | {p.serial for p in self.prober.probes if p.serial}

    def gates(self, first: float, max_lag: float = MAX_LAG) -> None:
        """Add the run's validity gates: load sent completely and on time, and no request lost before the injection.

        Args:
            first: start of the injection, in seconds on the run's timeline.
            max_lag: maximum 99th percentile of the send lag, in seconds; negative controls use `CONTROL_LAG`.
        """
        sent = [r for r in self.requests if r.sent]
        span = self.requests[-1].intended - self.requests[0].intended if self.requests else 0.0
        share = len(sent) / (span * self.rate + 1) if sent else 0.0
        lag, allowed = self.lag.percentile(99), CONTROL_LAG if self.run.negative else max_lag
        before, lost = self.latency(lambda at: at < first), self.lost(until=first)
        gate = self.run.findings.gate
        gate("requests sent", f">= {MIN_SENT:.0%} of the schedule", f"{share:.1%}", share >= MIN_SENT)
        gate("send lag p99", f"<= {allowed * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= allowed)
        words = f"{len(before)}, lost {by_cause(lost)}"
        gate("baseline", "requests before anything happens, none lost", words, len(before) > 0 and not lost)

    def facts(self, first: float, last: float) -> None:
        """Add the facts that all drills report, such as lost requests, latency by phase, and time to detect.

        Args:
            first: start of the injection, in seconds on the run's timeline.
            last: end of the injection, in seconds on the run's timeline.
        """
        fact, lost = self.run.findings.fact, self.lost()
        fact("requests sent", len(self.requests))
        fact("requests lost", len(lost))
        fact("lost by cause", dict(Counter(each.error for each in lost)) or "none")
        phases: tuple[tuple[str, Callable[[float], bool]], ...] = (
            ("before", lambda at: at < first),
            ("during", lambda at: first <= at < last),
            ("after", lambda at: at >= last),
        )
        for name, when in phases:
            found = self.latency(when)
            if len(found):
                p50, p99 = (found.percentile(percent) * 1e3 for percent in (50, 99))
                fact(f"p50 / p99 {name}, ms", f"{p50:.1f} / {p99:.1f}")
        kinds = Counter(f"{r.kind} {'lost' if r.error else 'ok'}" for r in self.requests)
        fact("requests by connection", dict(sorted(kinds.items())))
        fact("probes from outside", f"{len(self.prober.probes)}, of which {len(self.failed_probes())} refused")
        fact("serials seen from outside", len({p.serial for p in self.prober.probes if p.serial}))
        alarm = self.watch.first_alarm(first)
        fact("time to detect, s", None if alarm is None else round(alarm.at - first, 2))
        failed = [r.done for r in lost if r.sent >= first]
        fact("time to recover, s", round(max(failed) - first, 2) if failed else 0.0)

    # --- charts -----------------------------------------------------------------------------------------------------

    def picture(self, title: str, caption: str, *more: Panel, shown: Sequence[str] = SHOWN) -> None:
        """Add the drill's timeline chart: load, latency, certificates that the outside prober received, and alarms.

        Args:
            title: title of the chart; the number of lost requests is appended.
            caption: explanation of the chart.
            more: additional panels of this drill.
            shown: kinds of timeline events to show as vertical lines; empty if a panel already shows them.
        """
        end = self.requests[-1].intended if self.requests else self.run.now()
        title = f"{title}: {len(self.lost()):,} of {len(self.requests):,} requests lost"
        panels = [Panel(lanes=self._stripes(), y="certificate that the outside prober saw"), *more]
        if alarms := self._alarms(end):
            panels.append(Panel(lanes=alarms, y="alarms"))
        # Omit events after the end of the load, such as the clean-up.
        events = [e for e in self.run.timeline.events if e.at <= end and e.kind in shown]
        name, step = self.run.result.name, 0.25 if end < 60 else 1.0
        chart = time_line(title, self.requests, events, more=panels, caption=caption, name=name, step=step)
        self.run.findings.chart(chart)

    def _alarms(self, end: float) -> list[Lane]:
        """Return a chart lane for each health check of each host that failed before *end*."""
        lanes: dict[str, list[Span]] = defaultdict(list)
        for alarm in self.watch.alarms:
            if alarm.at < end:
                lanes[f"{alarm.host}: {alarm.check}"].append(Span(alarm.at, min(alarm.until, end), alarm.text, "bad"))
        return [Lane(name, spans) for name, spans in lanes.items()]

    def _stripes(self) -> list[Lane]:
        """Return two chart lanes: the certificates that the outside prober received, and whether it accepted them."""
        shown: list[Span] = []
        judged: list[Span] = []
        for number, probe in enumerate(self.prober.probes):
            following = self.prober.probes[number + 1].at if number + 1 < len(self.prober.probes) else probe.at + 0.5
            end = min(following, probe.at + STRIPE_GAP)
            extend(shown, Span(probe.at, end, probe.serial[:8] or "none"))
            extend(judged, Span(probe.at, end, probe.error or "ok", "bad" if probe.error else "good"))
        order = list(dict.fromkeys(span.text for span in shown))
        painted = [Span(s.begin, s.end, s.text, order.index(s.text) % 6 if s.text != "none" else "bad") for s in shown]
        return [Lane("serial", painted), Lane("verdict", judged)]


def by_cause(requests: Sequence[Request]) -> str:
    """Format the number of failed *requests* with a count for each cause: ``5 (reset 3, timeout 2)``."""
    why = ", ".join(f"{cause} {count}" for cause, count in Counter(each.error for each in requests).most_common())
    return f"{len(requests)} ({why})" if why else "0"


def distinct(texts: Sequence[str]) -> str:
    """Format the number of *texts* with a list of the distinct ones: ``3 (connection refused)``."""
    return f"{len(texts)} ({', '.join(sorted(set(texts)))})" if texts else "0"


def extend(spans: list[Span], new: Span) -> None:
    """Append *new* to a chart lane, or extend the last span if text and colour are equal and the gap is small."""
    if (
        spans
        and (spans[-1].text, spans[-1].colour) == (new.text, new.colour)
        and new.begin - spans[-1].end < STRIPE_GAP
    ):
        new = Span(spans.pop().begin, new.end, new.text, new.colour)
    spans.append(new)
