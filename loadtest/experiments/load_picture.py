"""The time line of a load as panels: requests by outcome, latency of those that went well, who showed which certificate."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from experiments.chart import Bars, Chart, Curve, Lane, Moment, Panel, Span
from experiments.result import Event
from generator import Histogram, Request

#: Seconds that one bar covers.
BIN = 0.25
#: Causes of failure that get a colour of their own; what is rarer is summed up.
CAUSES = 4
#: Words on the picture for each kind of event, and its colour; other kinds are in the table only.
SHOWN = {"injection": "mark", "undone": "good", "alarm": "bad"}
#: Letters of an event's text on the picture.
LETTERS = 24


def time_line(
    title: str,
    requests: Sequence[Request],
    events: Iterable[Event],
    *,
    serials: Sequence[tuple[float, str]] = (),
    more: Sequence[Panel] = (),
    caption: str = "",
    step: float = BIN,
) -> Chart:
    """Return the picture of a load; its seconds are those of *requests* and *events*, which share a clock.

    Args:
        title: of the picture.
        requests: of the load.
        events: injections and alarms become lines.
        serials: second and serial of the certificate that an outside prober saw.
        more: panels below, on the same seconds.
        caption: how to read it.
        step: seconds that one bar covers.
    """
    panels = [outcomes(requests, step), latencies(requests, step)]
    if serials:
        panels.append(Panel(lanes=certificates(serials), y="certificate seen from outside"))
    return Chart(title, [*panels, *more], x="seconds", caption=caption, moments=moments(events), low=0.0, name=title)


def outcomes(requests: Sequence[Request], step: float = BIN) -> Panel:
    """Return requests per second by outcome, failures by cause."""
    good: Counter[int] = Counter()
    bad: dict[str, Counter[int]] = defaultdict(Counter)
    for each in requests:
        if each.error:
            bad[each.error][int(each.intended / step)] += 1
        else:
            good[int(each.intended / step)] += 1
    causes = sorted(bad, key=lambda cause: -bad[cause].total())
    marks = [_bars("went well", good, step, "good")]
    marks += [_bars(f"lost: {cause}", bad[cause], step, "bad" if i == 0 else i + 2) for i, cause in enumerate(causes[:CAUSES])]  # fmt: skip
    if rest := causes[CAUSES:]:
        marks.append(_bars("lost: other causes", sum((bad[c] for c in rest), Counter()), step, 6))
    return Panel(marks, y="requests per second", height=170)


def latencies(requests: Sequence[Request], step: float = BIN) -> Panel:
    """Return median and 99th percentile of the requests that went well, by when they were meant to start."""
    bins: dict[int, list[float]] = defaultdict(list)
    for each in requests:
        if not each.error:
            bins[int(each.intended / step)].append(each.latency)
    curves = []
    for label, percent, colour in (("median", 50, 0), ("99 %", 99, 1)):
        points: list[tuple[float, float]] = []
        for i in range(max(bins, default=-1) + 1):
            value = Histogram(bins[i]).percentile(percent) * 1000 if i in bins else math.nan
            points.append(((i + 0.5) * step, value))
        curves.append(Curve(label, points, colour, measured=True))
    return Panel(curves, y="latency from the intended start, ms", height=120)


def certificates(serials: Sequence[tuple[float, str]]) -> list[Lane]:
    """Return a lane per certificate: from when to when it was shown."""
    lanes = []
    for i, serial in enumerate(dict.fromkeys(serial for _, serial in serials)):
        times = [at for at, each in serials if each == serial]
        lanes.append(Lane(serial[:8], [Span(times[0], max(times[-1], times[0] + BIN), serial[:16], i % 6)]))
    return lanes


def moments(events: Iterable[Event]) -> list[Moment]:
    """Return injections, their ends and alarms as lines."""
    return [Moment(e.at, e.text[:LETTERS], SHOWN[e.kind]) for e in events if e.kind in SHOWN]


def _bars(label: str, counts: Counter[int], step: float, colour: int | str) -> Bars:
    return Bars(label, [(i * step, (i + 1) * step, n / step) for i, n in sorted(counts.items())], colour)
