from experiments.chart import Bars, Curve
from experiments.load_picture import LETTERS, latencies, moments, outcomes
from experiments.result import Event
from generator import Request

#: A new connection takes 60 ms, an open one 20 ms; one in four is lost.
REQUESTS = [
    Request(i / 10, kind, i / 10, i / 10 + took, error="" if i % 4 else "reset")
    for i in range(40)
    for kind, took in (("fresh", 0.06), ("pooled", 0.02))
]


def test_each_kind_has_a_median_of_its_own() -> None:
    lines = {
        mark.label: {round(y) for _, y in mark.points}
        for mark in latencies(REQUESTS, 1.0).marks
        if isinstance(mark, Curve)
    }
    assert lines == {"median, fresh": {60}, "median, pooled": {20}, "99 % of all": {60}}


def test_outcomes_are_counted_per_second_by_cause() -> None:
    bars = {
        mark.label: sum(height for *_, height in mark.bars)
        for mark in outcomes(REQUESTS, 1.0).marks
        if isinstance(mark, Bars)
    }
    assert bars == {"went well": 60, "lost: reset": 20}


def test_long_words_are_cut_where_the_reader_sees_it() -> None:
    long, short = moments([Event(1.0, "injection", "x" * (LETTERS + 1)), Event(2.0, "undone", "fault off")])
    assert (len(long.text), long.text[-1], short.text) == (LETTERS, "…", "fault off")
