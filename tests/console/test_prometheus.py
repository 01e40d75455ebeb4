"""Tests for the Prometheus parser: it parses the output of `telemetry.metrics` and raises only its own exception."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.prometheus import ExpositionError, Series, parse
from telemetry import Metrics

NAMES = st.text(string.ascii_letters + "_:", min_size=1, max_size=12)
LABELS = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
VALUES = st.floats(allow_nan=False)


def test_a_scrape_is_parsed() -> None:
    scrape = parse('# HELP a b\n# TYPE a counter\na 1\nb{x="1",y="2"} 2.5 1795557604\n\nb{x="3"} 4\n')
    assert scrape.series[1] == Series("b", (("x", "1"), ("y", "2")), 2.5)
    assert scrape.total("a") == 1
    assert scrape.total("b") == 6.5
    assert scrape.total("b", x="3") == 4
    assert scrape.total("b", x="9") is None
    assert scrape.total("c") is None


def test_values_that_are_not_finite_are_ignored() -> None:
    scrape = parse("a NaN\na +Inf\n")
    assert scrape.total("a") is None
    assert math.isnan(scrape.series[0].value)


@given(st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False), max_size=6))
def test_our_own_metrics_are_read_back(values: dict[str, float]) -> None:
    metrics = Metrics()
    gauge = metrics.gauge("firstbyte_thing", "Things", "label")
    for label, value in values.items():
        gauge.set(value, label=label)
    read = {dict(series.labels)["label"]: series.value for series in parse(metrics.render()).series}
    assert read == values


@given(NAMES, st.dictionaries(LABELS, st.text(max_size=10), max_size=3), VALUES)
def test_one_sample_is_read_back(name: str, labels: dict[str, str], value: float) -> None:
    escaped = {k: v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for k, v in labels.items()}
    inside = ",".join(f'{k}="{v}"' for k, v in escaped.items())
    series = parse(f"{name}{{{inside}}} {value!r}\n").series
    assert series == (Series(name, tuple(labels.items()), value),)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    line = 1
    try:
        parse(text)
    except ExpositionError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("{} 1", "a metric name", id="no-name"),
        pytest.param("1a 1", "a metric name", id="name-begins-with-a-digit"),
        pytest.param("a", "a value", id="no-value"),
        pytest.param("a 1 2 3", "a value and perhaps a timestamp", id="three-numbers"),
        pytest.param("a one", "a number, got 'one'", id="no-number"),
        pytest.param('a{x="1} 1', "label=", id="label-does-not-end"),
        pytest.param("a{x=1} 1", "label=", id="label-without-quotes"),
        pytest.param('a{x="1" y="2"} 1', "label=", id="no-comma"),
    ],
)
def test_an_invalid_line_is_refused(line: str, expected: str) -> None:
    with pytest.raises(ExpositionError, match=r"^line 2: expected ") as caught:
        parse(f"a 1\n{line}\n")
    assert expected in str(caught.value)
