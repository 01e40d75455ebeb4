import json

import pytest

from experiments.estimate import Estimate
from experiments.findings import Findings
from experiments.result import Check, Quantity, Result, Row, Verdict


def result(**fields):
    return Result("some", "a claim", {}, **fields)


def check(name="lost", *, ok):
    return Check(name, "0", "3", ok)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        pytest.param(result(checks=[check(ok=True)]), Verdict.PASS, id="all-hold"),
        pytest.param(result(checks=[check(ok=True), check(ok=False)]), Verdict.FAIL, id="one-fails"),
        pytest.param(result(), Verdict.INVALID, id="nothing-checked"),
        pytest.param(result(checks=[check(ok=False)], validity=[check(ok=False)]),
            Verdict.INVALID, id="unfit-beats-fail"),
        pytest.param(result(checks=[check(ok=True)], interrupted="Ctrl-C"), Verdict.INVALID, id="interrupted"),
        pytest.param(result(skipped="no TUN"), Verdict.SKIPPED, id="skipped"),
        pytest.param(result(checks=[check(ok=False)], control="off", control_fails=("lost",)),
            Verdict.FAIL, id="control-fails-where-it-should"),
        pytest.param(result(checks=[check("late", ok=False)], control="off", control_fails=("lost",)),
            Verdict.INVALID, id="control-fails-elsewhere"),
        pytest.param(result(checks=[check(ok=True)], control="off", control_fails=("lost",)),
            Verdict.PASS, id="control-passes"),
    ],
)  # fmt: skip
def test_the_verdict(made, verdict):
    assert made.verdict is verdict


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        pytest.param(1.9, 2.05, 2.6, Verdict.PASS, id="near"),
        pytest.param(2.05, 2.3, 2.6, Verdict.INVALID, id="the-interval-reaches-into-the-tolerance"),
        pytest.param(2.2, 2.3, 2.6, Verdict.FAIL, id="the-interval-is-outside"),
        pytest.param(1.2, 1.5, 1.8, Verdict.FAIL, id="below"),
    ],
)
def test_a_measurement_that_scatters_too_much_decides_nothing(low, value, high, verdict):
    made = result(prediction={"slope": Quantity(2.0)})
    findings = Findings(made)
    findings.check_near(findings.row("slope", Estimate(value, low, high)), 0.1, absolute=True, scattered=True)
    assert made.verdict is verdict


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("skipped", 0), ("fail", 1), ("invalid", 4)])
def test_each_verdict_has_its_exit_code(verdict, code):
    assert Verdict(verdict).exit_code == code


def test_a_control_that_fails_elsewhere_says_so():
    made = result(checks=[check("late", ok=False)], control="off", control_fails=("lost",))
    assert made.reasons[-1] == "the control failed, but not where it should: expected lost"


def test_the_json_has_prediction_measurement_interval_and_residual_by_name():
    made = result(
        prediction={"slope": Quantity(3)}, rows=[Row("slope", "", 3, Estimate(3.1, 3.0, 3.2, 9))], facts={"sent": 4}
    )
    body = made.as_json()
    assert (body["prediction"], body["measurement"], body["interval"], body["residual"]) == (
        {"slope": 3}, {"slope": 3.1, "sent": 4}, {"slope": [3.0, 3.2]}, {"slope": 0.1},
    )  # fmt: skip


def test_the_json_is_json_even_when_nothing_was_measured():
    made = result(rows=[Row("slope", "", None, Estimate.of([]))])
    assert json.loads(json.dumps(made.as_json(), allow_nan=False))["measurement"] == {"slope": None}


@pytest.mark.parametrize(
    ("measured", "ok"), [(6.9, False), (7.1, True), (16.9, True), (17.1, False), (float("nan"), False)]
)
def test_chance_widens_the_bounds_of_a_factor(measured, ok):
    findings = Findings(result(prediction={"age": Quantity(10.0, "ms")}))
    findings.check_factor(findings.row("age", measured), 0.8, 1.6, chance=Estimate(10.0, 9.0, 11.0))
    (made,) = findings.result.checks
    assert (made.ok, made.expected) == (ok, "8 to 16 ms, ± 1 ms by chance")
