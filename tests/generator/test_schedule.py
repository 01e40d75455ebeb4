"""Tests for schedules: the number and the times of arrivals match the shape."""

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator import Schedule, ScheduleError, Shape, constant, ramp, spike, step

RATES = st.floats(0, 200)
LENGTHS = st.floats(0.01, 20)
SHAPES = st.one_of(
    st.builds(constant, RATES, LENGTHS),
    st.builds(ramp, RATES, RATES, LENGTHS),
    st.lists(st.tuples(RATES, LENGTHS), min_size=1, max_size=5).map(lambda levels: step(*levels)),
    st.builds(lambda b, p, at, n, rest: spike(b, p, at, n, at + n + rest), RATES, RATES, LENGTHS, LENGTHS, LENGTHS),
)


def test_a_constant_rate_is_evenly_spaced() -> None:
    assert list(Schedule(constant(4, 1.0)).times()) == [0, 0.25, 0.5, 0.75]


def test_a_constant_rate_without_end_goes_on() -> None:
    times = Schedule(constant(100)).times()
    assert next(itertools.islice(times, 100_000, None)) == pytest.approx(1000.0)


def test_a_step_changes_the_spacing_at_once() -> None:
    times = list(Schedule(step((2, 1), (4, 1))).times())
    assert times == [0, 0.5, 1.0, 1.25, 1.5, 1.75]


def test_a_silence_within_a_shape_is_skipped() -> None:
    assert list(Schedule(step((2, 1), (0, 3), (2, 1))).times()) == [0, 0.5, 4.0, 4.5]


def test_a_ramp_has_as_many_arrivals_as_its_area() -> None:
    times = list(Schedule(ramp(0, 100, 10)).times())
    assert len(times) == 500
    # Half of the arrivals of a ramp from 0 are in the last 29 % (1 - 1/sqrt(2)) of its duration.
    assert sum(t > 10 / math.sqrt(2) for t in times) == pytest.approx(250, abs=1)


def test_a_spike_is_the_peak_for_its_length_only() -> None:
    shape = spike(10, 100, 2, 1, 5)
    assert [shape.rate(t) for t in (0, 1.999, 2, 2.999, 3, 4.999, 5)] == [10, 10, 100, 100, 10, 10, 0]


@given(SHAPES)
def test_even_arrivals_are_as_many_as_the_area_says(shape: Shape) -> None:
    times = list(Schedule(shape).times())
    assert len(times) == pytest.approx(shape.arrivals(shape.seconds), abs=1.001)
    assert times == sorted(times)
    assert all(0 <= t <= shape.seconds for t in times)


@given(SHAPES, st.integers(1, 50))
def test_an_even_arrival_is_where_the_area_reaches_its_number(shape: Shape, number: int) -> None:
    time = next(itertools.islice(Schedule(shape).times(), number, None), None)
    if time is not None:
        assert shape.arrivals(time) == pytest.approx(number, rel=1e-6, abs=1e-6)


@given(SHAPES, st.integers())
def test_the_same_seed_gives_the_same_times(shape: Shape, seed: int) -> None:
    assert list(Schedule(shape, "exponential", seed).times()) == list(Schedule(shape, "exponential", seed).times())


def test_exponential_arrivals_have_mean_and_spread_of_a_poisson_process() -> None:
    times = list(Schedule(constant(200, 50), "exponential", seed=1).times())
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: constant(-1), "rates of 0 or more", id="negative-rate"),
        pytest.param(lambda: constant(math.nan), "rates of 0 or more", id="no-number"),
        pytest.param(lambda: constant(1, 0), "points from second 0 on", id="no-length"),
        pytest.param(lambda: ramp(1, 2, math.inf), "constant rate where the end is infinite", id="endless-ramp"),
        pytest.param(lambda: spike(1, 2, 5, 2, 6), "spike within 6 s", id="spike-after-the-end"),
        pytest.param(
            lambda: Schedule(constant(1), "poisson"),  # type: ignore[arg-type]  # invalid on purpose
            "'even' or 'exponential'",
            id="unknown-arrivals",
        ),
    ],
)
def test_a_meaningless_schedule_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        make()
