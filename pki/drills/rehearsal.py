"""What every drill stands on: steady open-loop load, an outside prober, and an ear at the hosts, on one time line."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from drills.prober import Prober
from drills.watch import Watch
from experiments import Lane, Panel, Run, Span
from generator import Histogram, Load, Request, Target
from hostfiles.layout import TRUST_ANCHOR
from reports.load_picture import time_line

#: Whose certificate is rehearsed with, and what clients call it.
HOST, NAME = "edge", "www.example.com"
#: Validity: the share of intended requests that were sent, and how late at the 99th percentile (seconds).  A loss is a
#: loss however late its request began; who judges latency asks for `PROMPT`.
MIN_SENT, MAX_LAG, PROMPT, CONTROL_LAG = 0.99, 2.0, 0.025, 5.0
#: Kinds of events that are lines in a picture.
SHOWN = ("injection", "undone")
#: Seconds between probes that become one stripe of the picture.
BLINK = 1.6


@dataclass(slots=True)
class Rehearsal:
    """Load on one name while something happens to the certificates of *hosts*."""

    run: Run
    #: Requests per second: half on fresh connections, half on one that is kept alive.
    rate: float
    hosts: Sequence[str] = (HOST,)
    name: str = NAME
    requests: list[Request] = field(default_factory=list)
    lag: Histogram = field(default_factory=Histogram)
    #: What has to be subtracted from the wall clock to be on the run's time line.
    epoch: float = 0.0
    watch: Watch = field(init=False)
    prober: Prober = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.run, self.hosts)
        self.prober = Prober(self.name, TRUST_ANCHOR)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Send, probe and watch for as long as the block lasts."""
        if not Prober.available():
            self.run.skip("no openssl to look from outside with")
        self.epoch = time.time() - self.run.now()
        load, stop = Load(Target(self.name, 443, "/items", TRUST_ANCHOR), self.rate), asyncio.Event()
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
            for each in load.requests:  # from the load's clock to the run's
                each.intended, each.sent, each.done = (began + t for t in (each.intended, each.sent, each.done))
            self.requests = load.requests

    async def baseline(self, seconds: float) -> None:
        """Let nothing happen under load, for what follows to be compared with."""
        self.run.phase("baseline")
        await self.run.until(self.run.now() + seconds)

    # --- what came of it --------------------------------------------------------------------------------------------

    def at(self, epoch: float) -> float:
        """Return a time since the epoch as seconds on the run's time line."""
        return epoch - self.epoch

    def lost(self, since: float = 0.0, until: float = float("inf")) -> list[Request]:
        """Return the requests that failed and began between two seconds."""
        return [r for r in self.requests if r.error and since <= r.sent < until]

    def fresh(self, since: float, until: float) -> list[Request]:
        """Return the requests with a connection of their own that began and ended between two seconds."""
        return [r for r in self.requests if r.kind == "fresh" and since <= r.sent and r.done < until]

    def latency(self, when: Callable[[float], bool]) -> Histogram:
        """Return the latencies of the requests that went well and were meant to begin when *when* says."""
        return Histogram(r.latency for r in self.requests if not r.error and when(r.intended))

    def failed_probes(self, since: float = 0.0, until: float = float("inf")) -> list[str]:
        """Return what the prober complained of between two seconds."""
        return [p.error for p in self.prober.probes if p.error and since <= p.at < until]

    def seen(self) -> set[str]:
        """Return every serial that clients or the prober were shown."""
        return {r.serial for r in self.requests if r.serial} | {p.serial for p in self.prober.probes if p.serial}

    def gates(self, first: float, max_lag: float = MAX_LAG) -> None:
        """Add what makes the measurement valid: the load was sent in time, and all was well before *first*."""
        sent = [r for r in self.requests if r.sent]
        span = self.requests[-1].intended - self.requests[0].intended if self.requests else 0.0
        share = len(sent) / (span * self.rate + 1) if sent else 0.0
        lag = self.lag.percentile(99)
        before, lost = self.latency(lambda at: at < first), self.lost(until=first)
        self.run.findings.gate("requests sent", f">= {MIN_SENT:.0%} of the schedule", f"{share:.1%}", share >= MIN_SENT)
        if self.run.negative:  # what a control loses, it loses by its hundreds, on a busy machine, too
            max_lag = CONTROL_LAG
        self.run.findings.gate("send lag p99", f"<= {max_lag * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= max_lag)
        words = f"{len(before)}, lost {said(lost)}"
        self.run.findings.gate(
            "baseline", "requests before anything happens, none lost", words, len(before) > 0 and not lost
        )

    def facts(self, first: float, last: float) -> None:
        """Keep the measures that all drills share: the fault began at *first* and ended at *last*."""
        run, lost = self.run, self.lost()
        run.findings.fact("requests sent", len(self.requests))
        run.findings.fact("requests lost", len(lost))
        run.findings.fact("lost by cause", causes(lost) or "none")
        phases: tuple[tuple[str, Callable[[float], bool]], ...] = (
            ("before", lambda at: at < first),
            ("during", lambda at: first <= at < last),
            ("after", lambda at: at >= last),
        )
        for name, when in phases:
            found = self.latency(when)
            if len(found):
                run.findings.fact(
                    f"p50 / p99 {name}, ms", f"{found.percentile(50) * 1e3:.1f} / {found.percentile(99) * 1e3:.1f}"
                )
        kinds = Counter(f"{r.kind} {'lost' if r.error else 'ok'}" for r in self.requests)
        run.findings.fact("requests by connection", dict(sorted(kinds.items())))
        run.findings.fact(
            "probes from outside", f"{len(self.prober.probes)}, of which {len(self.failed_probes())} refused"
        )
        run.findings.fact("serials seen from outside", len({p.serial for p in self.prober.probes if p.serial}))
        alarm = self.watch.first_alarm(first)
        run.findings.fact("time to detect, s", None if alarm is None else round(alarm.at - first, 2))
        failed = [r.done for r in lost if r.sent >= first]
        run.findings.fact("time to recover, s", round(max(failed) - first, 2) if failed else 0.0)

    def picture(self, title: str, caption: str, *more: Panel, shown: Sequence[str] = SHOWN) -> None:
        """Add the time line: load, latency, certificates as the prober saw them, and what a drill has beside it.

        Args:
            title: what happens in the picture; what it cost is added.
            caption: how to read it.
            more: panels below.
            shown: kinds of events that become lines; fewer where lanes tell the same.
        """
        end = self.requests[-1].intended if self.requests else self.run.now()
        title = f"{title}: {len(self.lost()):,} of {len(self.requests):,} requests lost"
        panels = [Panel(lanes=self._stripes(), y="certificate that the outside prober saw"), *more]
        if alarms := self._alarms(end):
            panels.append(Panel(lanes=alarms, y="alarms"))
        # What is taken back after the load is no part of it.
        events = [e for e in self.run.timeline.events if e.at <= end and e.kind in shown]
        chart = time_line(title, self.requests, events, more=panels, caption=caption, name=self.run.result.name,
                          step=0.25 if end < 60 else 1.0)  # fmt: skip
        self.run.findings.chart(chart)

    def _alarms(self, end: float) -> list[Lane]:
        """Return a lane for each check of each host that complained before *end*."""
        lanes: dict[str, list[Span]] = defaultdict(list)
        for alarm in self.watch.alarms:
            if alarm.at < end:
                lanes[f"{alarm.host}: {alarm.check}"].append(Span(alarm.at, min(alarm.until, end), alarm.text, "bad"))
        return [Lane(name, spans) for name, spans in lanes.items()]

    def _stripes(self) -> list[Lane]:
        """Return two lanes: what was shown, certificate after certificate, and what OpenSSL thought of it."""
        shown: list[Span] = []
        thought: list[Span] = []
        for number, probe in enumerate(self.prober.probes):
            following = self.prober.probes[number + 1].at if number + 1 < len(self.prober.probes) else probe.at + 0.5
            end = min(following, probe.at + BLINK)
            _extend(shown, probe.at, end, probe.serial[:8] or "none")
            _extend(thought, probe.at, end, probe.error or "ok")
        order = list(dict.fromkeys(span.text for span in shown))
        painted = [Span(s.begin, s.end, s.text, order.index(s.text) % 6 if s.text != "none" else "bad") for s in shown]
        judged = [Span(s.begin, s.end, s.text, "good" if s.text == "ok" else "bad") for s in thought]
        return [Lane("serial", painted), Lane("verdict", judged)]


def causes(requests: Sequence[Request]) -> dict[str, int]:
    """Return how many failed for each reason."""
    return dict(Counter(each.error for each in requests))


def said(requests: Sequence[Request]) -> str:
    """Return how many failed and why, in words."""
    why = ", ".join(f"{cause} {count}" for cause, count in Counter(each.error for each in requests).most_common())
    return f"{len(requests)} ({why})" if why else "0"


def listed(words: Sequence[str]) -> str:
    """Return how many complaints there were, and each different one once."""
    return f"{len(words)} ({', '.join(sorted(set(words)))})" if words else "0"


def _extend(spans: list[Span], begin: float, end: float, text: str) -> None:
    """Make the last span longer, or begin another."""
    if spans and spans[-1].text == text and begin - spans[-1].end < BLINK:
        spans[-1] = Span(spans[-1].begin, end, text)
    else:
        spans.append(Span(begin, end, text))
