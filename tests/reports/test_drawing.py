import math
import re
from xml.etree import ElementTree as ET

import pytest

from experiments.chart import Bars, Chart, Curve, Dots, Lane, Moment, Panel, Span
from reports.drawing import NARROW, WIDTH, svg

EVERYTHING = Chart(
    "All & <everything>",
    [
        Panel([Curve("theory", [(0, 1), (5, 6)]), Dots("measured", [(1, 2, 1.5, 2.5)])], y="ms"),
        Panel([Bars("ok", [(0, 1, 3), (1, 2, 4)]), Bars("lost", [(0, 1, 1)], "bad"),
               Curve("p99", [(0, math.nan), (1, 2)])]),
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
def test_every_chart_is_well_formed_and_has_only_finite_numbers(chart, standalone):
    text = svg(chart, standalone=standalone)
    ET.fromstring(text)  # noqa: S314 - trusted: our own SVG
    assert "nan" not in text
    assert "inf" not in text


def test_a_standalone_chart_has_colours_for_light_and_dark():
    assert "prefers-color-scheme: dark" in svg(EVERYTHING, standalone=True)


def test_bars_are_stacked():
    text = svg(Chart("x", [Panel([Bars("a", [(0, 1, 3)], 0), Bars("b", [(0, 1, 1)], 1)])], x=""))
    boxes = re.findall(r"class='f-(\d)' opacity='.85' x='[\d.]+' y='([\d.]+)' width='[\d.]+' height='([\d.]+)'", text)
    (_, top_of_a, _), (_, top_of_b, height_of_b) = boxes
    assert float(top_of_b) + float(height_of_b) == pytest.approx(float(top_of_a), abs=0.2)


def test_texts_of_moments_at_the_right_end_are_left_of_their_lines_in_separate_rows():
    late = [Moment(98, "renewal 10"), Moment(99, "renewal 11"), Moment(99.5, "renewal 12")]
    text = svg(Chart("x", [Panel([Curve("a", [(0, 1), (100, 2)])])], x="", moments=late))
    rows = re.findall(r"<text class='m-mark' x='[\d.]+' y='([\d.]+)' text-anchor='end'>", text)
    assert len(set(rows)) == len(late)


def test_lines_of_moments_are_above_bars_and_below_words_and_lanes():
    text = svg(EVERYTHING)
    line = text.index("stroke-dasharray='7 3'")
    assert text.index("opacity='.85'") < line < min(text.index("<text"), text.index("<title>4f96"))


def test_bars_of_losses_are_hatched_in_the_chart_and_in_its_legend():
    def hatches(bars):
        return svg(Chart("x", [Panel([bars])], x="")).count("fill='url(#hatch-960)'")

    spans = [(0.0, 1.0, 3.0), (1.0, 2.0, 3.0)]
    assert [
        hatches(Bars("lost", spans, "bad")),
        hatches(Bars("lost", spans, 3, hatched=True)),
        hatches(Bars("ok", spans)),
    ] == [3, 3, 0]


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_the_line_of_a_moment_crosses_no_words(width):
    long = [Curve(f"a label of some length, number {i}", [(0, 1), (100, 2)], i) for i in range(6)]
    moments = [Moment(at, f"at {at}") for at in (20, 22, 24, 60)]
    text = svg(
        Chart("x", [Panel(long, y="ms"), Panel(long, y="a second panel, ms")], x="", moments=moments), width=width
    )
    lines = [
        tuple(map(float, found)) for found in re.findall(r"x1='([\d.]+)' x2='\1' y1='([\d.]+)' y2='([\d.]+)'", text)
    ]
    words = re.findall(r"<text (?:class='ink' |class='m-mark' |)x='([\d.]+)' y='([\d.]+)'>([^<]+)<", text)
    assert len(lines) > len(moments)
    crossed = [
        said for x, top, bottom in lines for left, base, said in words
        if float(left) < x < float(left) + 5 * len(said) and top < float(base) - 4 < bottom
    ]  # fmt: skip
    assert crossed == []


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_a_legend_fits_into_the_chart(width):
    long = "two destinations = twice the ports = 10 requests each = server closes first = reset instead"
    text = svg(Chart("x", [Panel([Curve(long, [(0, 1), (1, 2)])], y="ms")], x=""), width=width)
    written = re.findall(r"<text x='([\d.]+)' y='[\d.]+'>([^<]+)<", text)
    assert all(float(x) + 6.5 * len(said) < width for x, said in written)
    labels = ["theory: what the round trips of the path add up to", "short", "measured, closed by the client", "both"]
    text = svg(
        Chart("x", [Panel([Curve(label, [(0, 1), (1, 2)]) for label in labels], y="latency, ms")], x=""), width=width
    )
    at = {said: float(x) for x, said in re.findall(r"<text x='([\d.]+)' y='[\d.]+'>([^<]+)<", text)}
    assert at.keys() >= set(labels)
    assert all(at[label] + 6.5 * len(label) < width for label in labels)


def test_names_that_do_not_fit_are_slanted():
    names = [f"ML-DSA-{i}" for i in range(12)]
    chart = Chart("x", [Panel([Bars("a", [(-0.3, 0.3, 1)])])], x="", categories=names)
    assert [svg(chart, width=width).count("rotate(-50)") for width in (WIDTH, NARROW)] == [0, 12]


def test_ticks_of_counted_things_are_whole_numbers():
    chart = Chart("x", [Panel([Curve("a", [(5, 1), (8, 2)])])], x="connections", whole=True)
    ticks_below = re.findall(r"text-anchor='middle'>([^<]+)<", svg(chart))
    assert ticks_below == ["5", "6", "7", "8"]


def test_two_charts_on_one_page_have_hatches_of_their_own():
    chart = Chart("x", [Panel([Bars("lost", [(0, 1, 1)], "bad")])], x="")
    names = [set(re.findall(r"pattern id='([^']+)'", svg(chart, width=width))) for width in (WIDTH, NARROW)]
    assert names == [{"hatch-960"}, {"hatch-480"}]
