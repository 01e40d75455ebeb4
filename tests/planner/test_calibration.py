"""Tests for the calibration: costs are plausible, cached, and measured again if the cache is unusable."""

from pathlib import Path

import pytest

from planner import calibration
from planner.calibration import Calibration, CalibrationError, load_or_calibrate


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return calibration.calibrate()


def test_costs_have_the_order_that_cryptography_gives_them(measured: Calibration) -> None:
    rsa, ecdsa = measured.costs("1.2", "rsa"), measured.costs("1.2", "ecdsa")
    assert rsa["full"].low > ecdsa["full"].low > ecdsa["resumed"].low > 0
    assert 0 < measured.per_byte.low < 1e-7


def test_without_tls_a_handshake_costs_nothing(measured: Calibration) -> None:
    assert measured.costs("none", "ecdsa")["full"].high == 0


def test_a_cached_calibration_is_used(measured: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(measured.to_json())
    assert load_or_calibrate(path) == (measured, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"machine": 1}',
        '{"machine": "m", "measured": "t", "handshakes": {"a": 1}, "per_byte": []}',
    ],
    ids=["empty", "torn", "list", "nothing", "half", "wrong-shape"],
)
def test_what_cannot_be_read_is_measured_again_and_replaced(text: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    found, new = load_or_calibrate(path)
    assert new
    assert Calibration.from_json(path.read_text()) == found


def test_costs_of_another_machine_are_not_used(measured: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(measured.to_json().replace(measured.machine, "another machine"))
    assert load_or_calibrate(path)[1]


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CalibrationError, match="cannot store the calibration in"):
        load_or_calibrate(tmp_path / "file" / "calibration.json")
