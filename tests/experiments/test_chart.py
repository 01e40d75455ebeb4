import math
import re
from xml.etree import ElementTree as ET

import pytest

from experiments.chart import Bars, Chart, Curve, Dots, Lane, Moment, Panel, Span, rasterise, svg, ticks

EVERYTHING = Chart(
    "All & <everything>",
    [
        Panel([Curve("theory", [(0, 1), (5, 6)]), Dots("measured", [(1, 2, 1.5, 2.5)])], y="ms"),
        Panel([Bars("ok", [(0, 1, 3), (1, 2, 4)]), Bars("lost", [(0, 1, 1)], "bad"), Curve("p99", [(0, math.nan), (1, 2)])]),
        Panel(lanes=[Lane("edge", [Span(0, 2, "4f96", 1), Span(2, 5, "617a", 2)])]),
        Panel([Curve("wide", [(0, 0.1), (5, 1000)])], log=True),
    ],
    x="seconds",
    moments=[Moment(i / 10, f"moment {i}") for i in range(30)],
)  # fmt: skip
EMPTY = Chart("Nothing", [Panel([Dots("none", [])]), Panel([Bars("none", [])])], x="seconds")
NAMED = Chart("Names", [Panel([Bars("a", [(-0.4, 0.4, 1)])])], x="", categories=["a long name that wraps", "b"])


@pytest.mark.parametrize("chart", [EVERYTHING, EMPTY, NAMED], ids=lambda c: c.title)
@pytest.mark.parametrize("standalone", [True, False])
def test_every_picture_is_well_formed_and_has_only_finite_numbers(chart, standalone):
    text = svg(chart, standalone=standalone)
    ET.fromstring(text)  # noqa: S314 - our own
    assert "nan" not in text
    assert "inf" not in text


def test_a_picture_that_stands_alone_brings_its_colours_for_light_and_dark():
    assert "prefers-color-scheme: dark" in svg(EVERYTHING, standalone=True)


def test_stacked_bars_stand_on_each_other():
    text = svg(Chart("x", [Panel([Bars("a", [(0, 1, 3)], 0), Bars("b", [(0, 1, 1)], 1)])], x=""))
    boxes = re.findall(r"class='f-(\d)' opacity='.78' x='[\d.]+' y='([\d.]+)' width='[\d.]+' height='([\d.]+)'", text)
    (_, top_of_a, _), (_, top_of_b, height_of_b) = boxes
    assert float(top_of_b) + float(height_of_b) == pytest.approx(float(top_of_a), abs=0.2)


def test_moments_at_the_right_end_are_written_left_of_their_line_and_in_rows_of_their_own():
    late = [Moment(98, "renewal 10"), Moment(99, "renewal 11"), Moment(99.5, "renewal 12")]
    text = svg(Chart("x", [Panel([Curve("a", [(0, 1), (100, 2)])])], x="", moments=late))
    rows = re.findall(r"<text class='m-mark' x='[\d.]+' y='([\d.]+)' text-anchor='end'>", text)
    assert len(set(rows)) == len(late)


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0, 0.5, 5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (18, 126, 4, [50, 100])],
)
def test_ticks_are_round(low, high, about, expected):
    assert ticks(low, high, about) == expected


def test_ticks_of_decades():
    assert ticks(1, 100, 5, log=True) == [1, 2, 5, 10, 20, 50, 100]


def test_a_machine_without_a_rasteriser_writes_no_png(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert (rasterise(tmp_path / "a.svg", tmp_path / "a.png"), list(tmp_path.iterdir())) == (False, [])
