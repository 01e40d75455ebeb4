import pytest

from experiments import parameters
from scenarios.slow_start import Round, SlowStart, rounds


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([], [], id="nothing-received"),
        pytest.param([(100, 314), (100.2, 13_032)], [Round(100.2, 13_346)], id="one-burst"),
        pytest.param(
            [(100, 10), (200, 20), (300.5, 40)], [Round(100, 10), Round(200, 30), Round(300.5, 70)], id="three-rounds"
        ),
        pytest.param(
            [(100, 10), (149, 20), (200, 5)],
            [Round(149, 30), Round(200, 35)],
            id="a-pause-shorter-than-the-gap-is-the-same-round",
        ),
        pytest.param([(0.1, 1)], [Round(0.1, 1)], id="the-first-round-needs-no-silence-before-it"),
    ],
)
def test_a_silence_starts_a_round(arrivals: list[tuple[float, int]], expected: list[Round]) -> None:
    assert rounds(arrivals, gap=50.0) == expected


def test_a_gap_longer_than_the_round_trip_merges_rounds() -> None:
    assert len(rounds([(100, 10), (200, 20)], gap=150.0)) == 1


@pytest.mark.parametrize(("size", "count"), [(14_150, 1), (14_151, 2), (43_110, 2), (43_111, 3)])
def test_head_and_body_share_the_first_segments(size: int, count: int) -> None:
    experiment = SlowStart(parameters.bind(SlowStart.settings, quick=True, given=[f"sizes={size}"]))
    assert experiment.predict()[f"round trips for {size:,} bytes"].value == count
