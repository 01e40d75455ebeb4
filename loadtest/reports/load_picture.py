"""Builds the chart of a load over time: requests by outcome, latencies of successful requests, injections, alarms."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from experiments.chart import Bars, Chart, Curve, Moment, Panel
from experiments.result import Event
from generator import Histogram, Request
from reports.labels import cut

#: Default width of a bar in seconds.
BIN = 0.25
#: Number of failure causes that are drawn separately, the most frequent first; all other causes are drawn as one group.
CAUSES = 4
#: Colour of each type of event that the chart shows; other events appear only in the report's table.
SHOWN = {"injection": "mark", "undone": "good", "alarm": "bad"}
#: Maximum length of an event's label in the chart, in characters.
LETTERS = 32
#: Prefix of an event's label, keyed by type of event.
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
    """Return the chart of a load.  The times of *requests* and *events* must be seconds on the same clock.

    Args:
        title: title of the chart.
        requests: requests of the load.
        events: events of the run; injections, their reversals and alarms are drawn as vertical lines.
        more: further panels, drawn below with the same time axis.
        caption: explanation of how to read the chart.
        name: text from which the file name is derived; "": the title.
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
    """Return a panel of the requests per second, with separate bars for successes and for each cause of failure."""
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
    # The first and the last bar span only the time during which the load ran, so that their heights are correct rates.
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
    """Return a panel of latencies of successful requests: median by kind of connection, and overall 99th percentile.

    An overall median would jump between the kinds, since a request on a new connection takes more round trips.
    """
    well = [each for each in requests if not each.error]
    kinds = sorted({each.kind for each in well})
    curves = [
        _percentile(f"median, {kind}", [r for r in well if r.kind == kind], 50, step, i) for i, kind in enumerate(kinds)
    ]
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
    """Return vertical lines for the injections, their reversals and the alarms among *events*."""
    return [
        Moment(e.at, cut(BEFORE[e.kind] + e.text.removeprefix("fault "), LETTERS), SHOWN[e.kind])
        for e in events
        if e.kind in SHOWN
    ]
