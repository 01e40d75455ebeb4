import pytest

from experiments import Check, Estimate, Event, Quantity, Repeats, Result, Row, Verdict

BELOW = {"low": None, "high": 10.0}


def result(p99=5.0, *, lost=0, injected=("fault on", "renewal 1"), valid=True, **more):
    """Return a synthetic result with two checks: no request is lost, and the p99 latency is below 10 ms."""
    made = Result("some", "Nothing is lost.", {}, seed=1, **more)
    made.prediction = {"lost": Quantity(0)}
    made.rows = [Row("lost", "", 0.0, Estimate(lost, lost, lost)), Row("p99", "ms", None, Estimate(p99, p99, p99))]
    made.checks = [
        Check("lost", "0", str(lost), lost == 0),
        Check("p99", "<= 10 ms", f"{p99} ms", p99 <= 10, value=p99, **BELOW),
    ]
    made.validity = [Check("generator's CPU", "< 80 %", "", valid)]
    made.events = [Event(0.1 * p99 * i, "injection", text) for i, text in enumerate(injected)]
    return made


def repeats(*results, wanted=None):
    return Repeats(results, wanted or len(results))


@pytest.mark.parametrize(
    ("runs", "verdict", "code", "said"),
    [
        pytest.param([result(4), result(5), result(6)], "pass", 0, [], id="all-alike"),
        pytest.param([result(4), result(50), result(6)], "pass", 1, ["verdicts differ: pass, fail, pass"],
            id="one-p99-too-long-is-no-median"),
        pytest.param([result(4), result(50), result(60)], "fail", 1, ["verdicts differ: pass, fail, fail"],
            id="two-of-three-are"),
        pytest.param([result(), result(lost=1), result()], "fail", 1, ["verdicts differ: pass, fail, pass"],
            id="one-lost-request-is-one-too-many"),
        pytest.param([result(lost=2), result(lost=1)], "fail", 1, [], id="all-fail"),
        pytest.param([result(valid=False)] * 3, "invalid", 4, [], id="none-valid"),
        pytest.param([result(), result(valid=False), result()], "pass", 1, ["verdicts differ: pass, invalid, pass"],
            id="one-invalid"),
        pytest.param([result(), result(valid=False)], "invalid", 1, ["verdicts differ: pass, invalid"],
            id="half-is-not-enough"),
        pytest.param([result(), result(interrupted="interrupted: kept")], "invalid", 4,
            ["cut off after 2 of 2 runs: interrupted: kept", "verdicts differ: pass, invalid"], id="interrupted"),
        pytest.param([result(skipped="no TUN")] * 2, "skipped", 0, [], id="skipped"),
    ],
)  # fmt: skip
def test_medians_are_judged_and_runs_have_to_agree(runs, verdict, code, said):
    found = repeats(*runs)
    assert (found.verdict, found.exit_code(), found.reasons) == (verdict, code, said)


def test_an_incomplete_series_is_invalid():
    found = repeats(result(lost=1), result(lost=1), wanted=5)
    assert (found.exit_code(), found.reasons) == (4, ["cut off after 2 of 5 runs"])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("fault on", "renewal 1"), ""),
        (("renewal 1", "fault on"), "injection 1 of run 2: expected “fault on” as in run 1, got “renewal 1”"),
        (("fault on",), "injection 2 of run 2: expected “renewal 1” as in run 1, got no more"),
        (
            ("fault on", "renewal 1", "renewal 2"),
            "injection 3 of run 2: expected no more as in run 1, got “renewal 2”",
        ),
    ],
)
def test_the_first_injection_that_differs_is_reported(other, said):
    found = repeats(result(), result(injected=other), result())
    assert found.difference == said
    assert found.exit_code() == (1 if said else 0)


def test_the_times_of_injections_may_differ():
    found = repeats(result(4), result(8))
    assert [(each.text, each.at) for each in found.injections] == [
        ("fault on", (0.0, 0.0)),
        ("renewal 1", (0.4, 0.8)),
    ]


def test_injections_of_invalid_runs_do_not_count():
    cut = result(injected=("fault on",), valid=False)
    assert repeats(cut, result(), result()).difference == ""


def test_rows_have_median_range_and_the_residual_of_each_run():
    lost, p99 = repeats(result(4), result(6, lost=1), result(9)).rows
    assert (lost.predicted, lost.median, lost.residuals) == (0, 0, [0, 1, 0])
    assert (p99.predicted, p99.median, min(p99.values), max(p99.values), p99.unit) == (None, 6, 4, 9, "ms")


def test_a_run_without_a_row_leaves_a_gap():
    short = result()
    short.rows.pop()
    assert [row.residuals for row in repeats(result(), short).rows] == [[0, 0], [None, None]]


def test_a_control_has_to_fail_where_it_should():
    elsewhere = {"control": "the safety is off", "control_fails": ("lost",)}
    assert repeats(result(lost=1, **elsewhere), result(lost=1, **elsewhere)).verdict is Verdict.FAIL
    assert repeats(result(50, **elsewhere), result(50, **elsewhere)).verdict is Verdict.INVALID
