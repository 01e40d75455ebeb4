"""Tests for the validity gate that detects a busy machine by the wake-ups of the recorder."""

import random

import pytest

from experiments import gate
from experiments.recorders import HERE, HZ, Series


def recording(share_late: float, delay: float, samples: int = 200) -> dict[str, Series]:
    """Return a recording in which *share_late* of the samples are *delay* seconds late."""
    rng = random.Random(3)
    times = [n / HZ + (delay if rng.random() < share_late else 0.0005 * rng.random()) for n in range(samples)]
    return {HERE: Series((*times, times[-1] + 0.01), {})}


@pytest.mark.parametrize(
    ("series", "busy"),
    [
        pytest.param(recording(0.0, 0.0), False, id="idle"),
        pytest.param(recording(0.02, 0.3), False, id="two-pauses-in-a-hundred"),
        pytest.param(recording(0.3, 0.005), False, id="often-but-short"),
        pytest.param(recording(0.2, 0.03), True, id="busy"),
        pytest.param(recording(0.2, 0.03, samples=30), False, id="too-short-to-tell"),
        pytest.param({"edge": recording(0.2, 0.03)[HERE]}, False, id="another-host"),
    ],
)
def test_late_wake_ups_show_a_busy_machine(series: dict[str, Series], busy: bool) -> None:
    assert [check.ok for check in gate.punctual(series)] == [False] * busy
