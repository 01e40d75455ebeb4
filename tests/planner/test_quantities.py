"""Tests for quantities with units: accepted and rejected texts, and formatted values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.quantities import Kind, Range, duration, parse, significant


@pytest.mark.parametrize(
    ("text", "kind", "low", "high"),
    [
        ("30ms", "duration", 0.03, 0.03),
        ("60", "duration", 60, 60),
        ("47d", "duration", 47 * 86_400, 47 * 86_400),
        ("20ms..40ms", "duration", 0.02, 0.04),
        ("500us..1s", "duration", 0.0005, 1),
        ("10M", "count", 1e7, 1e7),
        ("20k", "rate", 20_000, 20_000),
        ("1.5k", "rate", 1500, 1500),
        ("90%", "share", 0.9, 0.9),
        ("0.5..0.9", "share", 0.5, 0.9),
        ("50kB", "bytes", 50_000, 50_000),
        ("1KiB", "bytes", 1024, 1024),
    ],
)
def test_a_quantity_is_read_with_its_unit(text: str, kind: Kind, low: float, high: float) -> None:
    found = parse(text, kind)
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("", "duration", "expected a duration"),
        ("30 m s", "duration", "expected a duration"),
        ("-1", "count", "expected a count"),
        ("10m", "count", "expected a count"),
        ("nan", "share", "expected a share"),
        ("inf", "rate", "expected a rate"),
        ("1e999", "rate", "too large"),
        ("٣", "count", "expected a count"),
        ("40ms..20ms", "duration", "first value is the larger"),
        ("1..2..3", "count", "expected a count"),
        ("..5", "count", "expected a count"),
        ("50KB", "bytes", "expected a size"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, kind: Kind, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as error:
        parse(text, kind)
    assert "\n" not in str(error.value)


@given(st.text(max_size=12), st.sampled_from(["count", "rate", "duration", "share", "bytes"]))
def test_no_text_causes_another_error(text: str, kind: Kind) -> None:
    try:
        found = parse(text, kind)
    except ValueError:
        return
    assert 0 <= found.low <= found.high < math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123, "0.00123"), (1.41, "1.41"), (99.96, "100"), (17_912, "17,900"), (1_234_567, "1.23 M")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (175e-6, "175 µs"), (0.0015, "1.50 ms"), (1.41, "1.41 s"), (300, "5.00 min"), (4e6, "46.3 d")],
)
def test_durations_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_range_of_one_value_has_one_end() -> None:
    assert (Range(1, 1).ends, Range(1, 2).ends) == ((1,), (1, 2))
