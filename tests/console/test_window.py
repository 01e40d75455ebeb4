"""Tests for counter rates: over the sliding window, and after a restart that resets the counters."""

from hypothesis import given
from hypothesis import strategies as st

from console.window import Window


def test_one_point_gives_no_rate() -> None:
    window = Window(60)
    window.add(0, 5)
    assert window.growth() is None
    assert window.rates() is None


def test_the_rate_covers_the_window() -> None:
    window = Window(10)
    for at, value in ((0, 0), (10, 1000), (20, 1010), (30, 1020)):
        window.add(at, value)
    assert window.growth() == (10, (10,))
    assert window.rates() == (1,)


def test_a_counter_that_decreased_starts_afresh() -> None:
    window = Window(60)
    window.add(0, 100, 5)
    window.add(2, 3, 6)
    assert window.growth() is None
    window.add(4, 7, 8)
    assert window.growth() == (2, (4, 2))


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 100)), min_size=2, max_size=40))
def test_growth_is_never_negative(steps: list[tuple[float, int]]) -> None:
    window, at = Window(60), 0.0
    for pause, value in steps:
        at += pause
        window.add(at, value)
        grown = window.growth()
        assert grown is None or (grown[0] > 0 and grown[1][0] >= 0)
