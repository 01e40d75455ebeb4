"""The time line of a load as panels: requests by outcome, latency of those that went well, who showed which certificate."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from experiments.chart import Bars, Chart, Curve, Lane, Moment, Panel, Span
from experiments.result import Event
from generator import Histogram, Request
from reports.labels import cut

#: Seconds that one bar covers.
BIN = 0.25
#: Causes of failure that get a colour of their own; what is rarer is summed up.
CAUSES = 4
#: The colour of each kind of event that is shown; others are in the table only.
SHOWN = {"injection": "mark", "undone": "good", "alarm": "bad"}
#: Letters of an event's text on the picture.
LETTERS = 32
#: What stands before that text; an undone fault names itself.
BEFORE = {"injection": "", "undone": "undone: ", "alarm": "alarm: "}


def time_line(
    title: str,
    requests: Sequence[Request],
    events: Iterable[Event],
    *,
    serials: Sequence[tuple[float, str]] = (),
    more: Sequence[Panel] = (),
    caption: str = "",
    name: str = "",
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
        name: of its file.
        step: seconds that one bar covers.
    """
    panels = [outcomes(requests, step), latencies(requests, step)]
    if serials:
        panels.append(Panel(lanes=certificates(serials), y="certificate seen from outside"))
    return Chart(
        title,
        [*panels, *more],
        x="seconds of the run",
        caption=caption,
        moments=moments(events),
        low=0.0,
        name=name or title,
    )


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
    named: list[tuple[str, Counter[int], int | str]] = [("went well", good, "good")]
    named += [(f"lost: {cause}", bad[cause], "bad" if i == 0 else i + 2) for i, cause in enumerate(causes[:CAUSES])]
    if rest := causes[CAUSES:]:
        named.append(("lost: other causes", sum((bad[c] for c in rest), Counter()), 6))
    # The load begins and ends within a bar: that one is as narrow as what it covers, not lower.
    times = [each.intended for each in requests]
    first, last = min(times, default=0.0), max(times, default=0.0)
    last += (last - first) / max(1, len(times) - 1)
    marks = []
    for label, counts, colour in named:
        bars = []
        for i, count in sorted(counts.items()):
            begin = max(i * step, min(first, (i + 0.75) * step))
            end = min((i + 1) * step, max(last, begin + step / 4))
            bars.append((begin, end, count / (end - begin)))
        marks.append(Bars(label, bars, colour, hatched=colour != "good"))
    return Panel(marks, y="requests per second", height=170)


def latencies(requests: Sequence[Request], step: float = BIN) -> Panel:
    """Return medians by kind and the 99th percentile of what went well, by when requests were meant to start.

    Kinds have medians apart: a new connection takes round trips that an open one does not, so the median of both
    together would jump from one to the other.
    """
    well = [each for each in requests if not each.error]
    kinds = sorted({each.kind for each in well})
    curves = [_percentile(f"median, {kind}", [r for r in well if r.kind == kind], 50, step, i) for i, kind in enumerate(kinds)]  # fmt: skip
    curves.append(_percentile("99 % of all", well, 99, step, len(kinds)))
    return Panel(curves, y="latency from the intended start, ms", height=120)


def _percentile(label: str, requests: Sequence[Request], percent: float, step: float, colour: int) -> Curve:
    bins: dict[int, list[float]] = defaultdict(list)
    for each in requests:
        bins[int(each.intended / step)].append(each.latency)
    points = [
        ((i + 0.5) * step, Histogram(bins[i]).percentile(percent) * 1000 if i in bins else math.nan)
        for i in range(max(bins, default=-1) + 1)
    ]
    return Curve(label, points, colour, measured=True)


def certificates(serials: Sequence[tuple[float, str]]) -> list[Lane]:
    """Return a lane per certificate: from when to when it was shown."""
    lanes = []
    for i, serial in enumerate(dict.fromkeys(serial for _, serial in serials)):
        times = [at for at, each in serials if each == serial]
        lanes.append(Lane(serial[:8], [Span(times[0], max(times[-1], times[0] + BIN), serial[:16], i % 6)]))
    return lanes


def moments(events: Iterable[Event]) -> list[Moment]:
    """Return injections, their ends and alarms as lines."""
    return [
        Moment(e.at, cut(BEFORE[e.kind] + e.text.removeprefix("fault "), LETTERS), SHOWN[e.kind])
        for e in events
        if e.kind in SHOWN
    ]
