from dataclasses import dataclass

import pytest

from experiments.parameters import ParameterError, bind, describe, parameter


@dataclass(frozen=True, slots=True)
class Some:
    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="arrivals")
    renewals: int = parameter(10, quick=3, low=1, high=100, help="how many")
    rtt_ms: tuple[float, ...] = parameter((20.0, 120.0), unit="ms", low=0, high=500, least=2, help="round trips")
    closes: str = parameter("client", choices=("client", "server"), help="who closes first")
    kept: bool = parameter(False, help="keep connections")

    def __post_init__(self) -> None:
        if self.kept and self.renewals > self.rate:
            raise ParameterError("expected at most as many renewals as requests, where connections are kept")


def test_a_full_run_takes_the_full_values_and_a_quick_run_the_quick_ones():
    assert (bind(Some, quick=False).rate, bind(Some, quick=True).rate) == (200.0, 100.0)


def test_a_value_without_a_quick_one_is_the_same_in_both():
    assert bind(Some, quick=True).rtt_ms == (20.0, 120.0)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        pytest.param("rate=300", "rate", 300.0, id="number"),
        pytest.param("renewals = 4", "renewals", 4, id="blanks"),
        pytest.param("rtt-ms=5,50", "rtt_ms", (5.0, 50.0), id="tuple-and-dash"),
        pytest.param("closes=server", "closes", "server", id="choice"),
        pytest.param("kept=yes", "kept", True, id="boolean"),
    ],
)
def test_a_given_value_wins(text, name, value):
    assert getattr(bind(Some, quick=True, given=[text]), name) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rat=3", "expected a parameter of rate, renewals, rtt_ms, closes, kept; got 'rat'"),
        ("rate", "expected NAME=VALUE, got 'rate'"),
        ("rate=fast", "expected rate to be a number (requests/s), got 'fast'"),
        ("rate=0", "expected rate to be a number (requests/s) from 1 to 2000, got 0"),
        ("rate=nan", "expected rate to be a number (requests/s) from 1 to 2000, got nan"),
        ("renewals=2.5", "expected renewals to be a whole number, got '2.5'"),
        ("rtt_ms=20,-1", "expected rtt_ms to be a number (ms) from 0 to 500, got -1"),
        ("rtt_ms=20", "expected rtt_ms to be at least 2 different values, got 20"),
        ("rtt_ms=20,20", "expected rtt_ms to be at least 2 different values, got 20,20"),
        ("closes=nobody", "expected closes to be one of client, server; got 'nobody'"),
        ("kept=maybe", "expected kept to be true or false, got 'maybe'"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line(text, says):
    with pytest.raises(ParameterError) as refused:
        bind(Some, quick=False, given=[text])
    assert str(refused.value) == says


def test_a_rule_about_several_parameters_is_refused_in_one_line():
    with pytest.raises(ParameterError, match="expected at most as many renewals as requests"):
        bind(Some, quick=False, given=["kept=yes", "renewals=9", "rate=8"])


def test_the_description_names_unit_and_bounds():
    first = describe(Some)[0]
    assert first == {
        "name": "rate", "full": 200.0, "quick": 100.0, "unit": "requests/s", "low": 1, "high": 2000, "help": "arrivals",
    }  # fmt: skip
