"""Converts runs to JUnit test suites for CI servers: one suite per run, one test case per check."""

from experiments.archive import StoredRun
from experiments.result import headline
from hostfiles.junit import Case, Suite


def suite(run: StoredRun) -> Suite:
    """Return a run as a test suite.

    A failed check is a failure; a failed validity gate, or any other reason why the run is inconclusive, is an error.
    A negative control is a single test case, which passes if the control failed as expected.
    """
    body = run.body
    checks = [each for each in body.get("checks", ()) if isinstance(each, dict)]
    if run.control:
        why = "; ".join(map(str, body.get("reasons", ())))
        good = run.verdict == "fail"
        words = headline(run.verdict, control=True)
        cases = [Case("control fails as it must", "passed" if good else "failure", "" if good else f"{words}. {why}")]
    elif run.verdict == "skipped":
        cases = [Case("run", "skipped", "; ".join(map(str, body.get("reasons", ()))))]
    else:
        cases = [
            Case(
                str(each["name"]),
                "passed" if each["ok"] else "failure",
                f"expected {each['expected']}, got {each['got']}",
            )
            for each in checks
        ]
        if run.verdict == "invalid":
            cases.append(Case("validity", "error", "; ".join(map(str, body.get("reasons", ())))))
    properties = [("verdict", run.verdict), ("quick", str(run.quick).lower()), ("seed", str(body.get("seed", "")))]
    properties += [(name, str(value)) for name, value in body.get("parameters", {}).items()]
    began = str(body.get("manifest", {}).get("time", ""))
    return Suite(
        f"{run.name}{' (control)' if run.control else ''}", cases, float(body.get("took_s", 0.0)), began, properties
    )
