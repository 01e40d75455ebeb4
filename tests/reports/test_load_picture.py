from collections import Counter

import pytest

from experiments.chart import Bars, Curve
from experiments.result import Event
from generator import Request
from reports.load_picture import LETTERS, latencies, moments, outcomes


def load(seconds, rate=20.0, begin=0.1):
    """Return synthetic requests, alternately on fresh (latency 60 ms) and on pooled (latency 20 ms) connections."""
    return [
        Request(at, kind, sent=at, done=at + took)
        for i in range(int(seconds * rate))
        for at, (kind, took) in [(begin + i / rate, (("fresh", 0.06), ("pooled", 0.02))[i % 2])]
    ]


def curves(requests):
    return [mark for mark in latencies(requests).marks if isinstance(mark, Curve)]


def stacked(requests, step=0.25):
    return [mark for mark in outcomes(requests, step).marks if isinstance(mark, Bars)]


def test_each_kind_of_connection_has_its_own_median_and_there_is_none_of_all():
    found = {curve.label: {round(y, 1) for _, y in curve.points} for curve in curves(load(5))}
    assert found == {"median, fresh": {60.0}, "median, pooled": {20.0}, "99 % of all": {60.0}}


def test_lost_requests_have_no_latency():
    requests = load(1)
    for each in requests:
        each.error = "refused"
    assert [curve.points for curve in curves(requests)] == [[]]


def test_outcomes_are_counted_per_second_by_cause():
    requests = load(4.0, rate=20.0, begin=0.0)
    for each in requests[::4]:
        each.error = "reset"
    sums = {bars.label: sum(height for *_, height in bars.bars) for bars in stacked(requests, 1.0)}
    assert sums == pytest.approx({"succeeded": 60, "lost: reset": 20})


def test_the_first_and_last_bars_are_narrower_but_as_high_as_the_others():
    bars = stacked(load(5.0, rate=40.0, begin=0.1))[0].bars
    assert [height for _, _, height in bars] == pytest.approx([40.0] * len(bars), rel=0.15)
    assert (bars[0][0], bars[-1][1]) == pytest.approx((0.1, 5.1), abs=0.03)


def test_stacked_bars_add_up_to_the_rate_of_the_load():
    requests = load(2.0, rate=40.0, begin=0.0)
    for each in requests[20:45]:
        each.error = "refused"
    good, lost = stacked(requests)
    high: Counter[float] = Counter()
    for begin, _, height in (*good.bars, *lost.bars):
        high[begin] += height
    assert list(high.values()) == pytest.approx([40.0] * 8)
    assert (lost.label, lost.hatched, good.hatched) == ("lost: refused", True, False)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("injection", "edge: renewal_off on", "edge: renewal_off on"),
        ("undone", "fault renewal_off of edge", "undone: renewal_off of edge"),
        ("alarm", "edge: certificate", "alarm: edge: certificate"),
    ],
)
def test_the_text_of_a_line_says_what_its_colour_says(kind, text, words):
    assert [moment.text for moment in moments([Event(1.0, kind, text)])] == [words]


def test_a_long_text_ends_in_an_ellipsis():
    (long,) = moments([Event(1.0, "injection", "x" * (LETTERS + 1))])
    assert (len(long.text), long.text[-1]) == (LETTERS, "…")
