import math
import random

import pytest

from experiments.estimate import Estimate, Line


def test_the_interval_of_few_values_is_their_range():
    assert Estimate.of([3.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 3.0, 3)


def test_nothing_measured_is_not_a_number():
    assert math.isnan(Estimate.of([]).value)


def test_the_interval_contains_the_true_median_95_times_in_100():
    rng = random.Random(7)
    held = 0
    for _ in range(1000):
        estimate = Estimate.of(rng.expovariate(1.0) for _ in range(15))
        held += estimate.low <= math.log(2) <= estimate.high
    assert 930 <= held <= 995


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (10, 10), (5, 10), (700, 1000)])
def test_a_share_lies_in_its_interval_and_the_interval_in_zero_to_one(hits, of):
    share = Estimate.share(hits, of)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilsons_interval_of_seven_in_ten():
    share = Estimate.share(7, 10)
    assert (round(share.low, 3), round(share.high, 3)) == (0.397, 0.892)


def test_the_mean_of_a_drifting_series_has_a_wide_interval():
    steady = Estimate.mean([1.0, 1.2] * 50)
    drifting = Estimate.mean([float(i) for i in range(100)])
    assert steady.high - steady.low < 0.1 < drifting.high - drifting.low


def test_a_line_through_exact_points_has_no_spread():
    line = Line.through([(20, 65.0), (70, 215.0), (120, 365.0)])
    assert (round(line.slope, 9), round(line.intercept, 9), round(line.half, 9)) == (3.0, 5.0, 0.0)


def test_points_above_one_another_make_no_line():
    with pytest.raises(ValueError, match="two different x values"):
        Line.through([(20, 1.0), (20, 2.0)])
