import math

import pytest

from experiments.chart import Bars, Chart, Curve, Dots, Panel
from reports.axis import Axis


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0, 0.5, 5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (18, 126, 4, [50, 100])],
)
def test_ticks_are_round(low, high, about, expected):
    assert Axis(low, high).ticks(about) == expected


def test_ticks_of_decades():
    assert Axis(1, 100, log=True).ticks(5) == [1, 2, 5, 10, 20, 50, 100]


def test_an_axis_of_less_than_a_decade_has_several_ticks():
    assert Axis(10, 90, log=True).ticks(5) == [10, 15, 20, 30, 40, 50, 60, 80]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([Bars("ok", [(0, 1, 3)]), Bars("lost", [(0, 1, 1)], "bad")], (0, 4.2)),
        ([Dots("measured", [(1, 2, 1.5, 10)])], (0, 10.5)),
        ([Curve("theory", [(0, -1), (1, 20), (2, math.nan)])], (-1, 21)),
        ([], (0, 1.05)),
    ],
    ids=["bars on each other", "an interval", "below zero", "nothing"],
)
def test_an_axis_covers_all_marks(marks, expected):
    axis = Axis.upwards(Panel(marks))
    assert (axis.low, axis.high) == pytest.approx(expected)


@pytest.mark.parametrize(("marks", "expected"), [([], (1, 10)), ([Dots("x", [(0, 1, 1, 1), (5, 1, 1, 1)])], (5, 6))])
def test_a_logarithmic_axis_begins_above_zero(marks, expected):
    axis = Axis.across(Chart("measured until the run was interrupted", [Panel(marks)], x="seconds", log=True))
    assert (axis.low, axis.high) == pytest.approx(expected)


def test_all_decades_have_the_same_length():
    axis = Axis(1, 1000, log=True)
    assert [axis.place(value, 300) for value in (0, 1, 10, 100, 1000)] == pytest.approx([0, 0, 100, 200, 300])
