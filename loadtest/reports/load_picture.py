"""The chart of a load over time: requests by outcome, latencies of successful requests, injections and alarms."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from experiments.chart import Bars, Chart, Curve, Moment, Panel
from experiments.result import Event
from generator import Histogram, Request
from reports.labels import cut

#: Width of a bar in seconds.
BIN = 0.25
#: Causes of failure with a colour of their own; rarer ones are added up.
CAUSES = 4
#: Colours of the kinds of events that are drawn; other kinds are in the report's table only.
SHOWN = {"injection": "mark", "undone": "good", "alarm": "bad"}
#: Longest text of an event in the picture.
LETTERS = 32
#: Prefix of that text; the text of an injection already says what it is.
BEFORE = {"injection": "", "undone": "undone: ", "alarm": "alarm: "}


def time_line(
    title: str,
    requests: Sequence[Request],
    events: Iterable[Event],
    *,
    more: Sequence[Panel] = (),
    caption: str = "",
    name: str = "",
    step: float = BIN,
) -> Chart:
    """Return the chart of a load; *requests* and *events* have seconds of the same clock.

    Args:
        title: of the chart.
        requests: of the load.
        events: injections, their ends and alarms become lines.
        more: panels below, over the same seconds.
        caption: how to read it.
        name: of its files.
        step: width of a bar in seconds.
    """
    return Chart(
        title,
        [outcomes(requests, step), latencies(requests, step), *more],
        x="seconds of the run",
        caption=caption,
        moments=moments(events),
        low=0.0,
        name=name or title,
    )


def outcomes(requests: Sequence[Request], step: float = BIN) -> Panel:
    """Return requests per second, successful and lost ones, the latter by cause."""
    good: Counter[int] = Counter()
    bad: dict[str, Counter[int]] = defaultdict(Counter)
    for each in requests:
        if each.error:
            bad[each.error][int(each.intended / step)] += 1
        else:
            good[int(each.intended / step)] += 1
    causes = sorted(bad, key=lambda cause: -bad[cause].total())
    named: list[tuple[str, Counter[int], int | str]] = [("succeeded", good, "good")]
    named += [(f"lost: {cause}", bad[cause], "bad" if i == 0 else i + 2) for i, cause in enumerate(causes[:CAUSES])]
    if rest := causes[CAUSES:]:
        named.append(("lost: other causes", sum((bad[c] for c in rest), Counter()), 6))
    # The first and last bars are as narrow as the part that the load covers, so that their height is right.
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
    """Return the median latency of each kind of connection and the 99th percentile of all, for successful requests.

    There is no median of all: a new connection takes more round trips than an open one, so it would jump between the two.
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


def moments(events: Iterable[Event]) -> list[Moment]:
    """Return injections, their ends and alarms as vertical lines."""
    return [
        Moment(e.at, cut(BEFORE[e.kind] + e.text.removeprefix("fault "), LETTERS), SHOWN[e.kind])
        for e in events
        if e.kind in SHOWN
    ]
