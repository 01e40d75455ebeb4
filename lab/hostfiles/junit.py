"""Writes JUnit XML, the format in which CI servers (GitLab, Jenkins, GitHub Actions) read test results.

JUnit XML has no standard; this module writes only elements of the JUnit 10 schema that all readers accept.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hostfiles.atomic import atomic_write

#: Characters that XML 1.0 does not allow, not even escaped; each is replaced with U+FFFD.
_FORBIDDEN = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\N{REPLACEMENT CHARACTER}"
)


@dataclass(frozen=True, slots=True)
class Case:
    """The result of one check, as a JUnit test case."""

    name: str
    #: Result of the check; "error" if it could not be performed, "skipped" if it was omitted.
    outcome: Literal["passed", "failure", "error", "skipped"] = "passed"
    #: Explanation of `outcome`, in one line, such as the reason for a failure.
    message: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The test cases of one run."""

    name: str
    cases: Sequence[Case]
    #: Duration of the run in seconds.
    took: float
    #: Start of the run as an ISO 8601 time; "" if it is unknown.
    began: str = ""
    #: Properties of the run, such as its random seed, as pairs of name and value.
    properties: Sequence[tuple[str, str]] = ()


def write(path: Path, suites: Sequence[Suite]) -> None:
    """Write *suites* to *path*.

    Raises:
        OSError: the file cannot be written; if the file already existed, it is unchanged.
    """
    root = ET.Element("testsuites", _totals(suites))
    for suite in suites:
        element = ET.SubElement(root, "testsuite", {"name": _text(suite.name), **_totals([suite])})
        if suite.began:
            element.set("timestamp", suite.began)
        if suite.properties:
            properties = ET.SubElement(element, "properties")
            for name, value in suite.properties:
                ET.SubElement(properties, "property", {"name": _text(name), "value": _text(value)})
        for case in suite.cases:
            entry = ET.SubElement(element, "testcase", {"classname": _text(suite.name), "name": _text(case.name)})
            if case.outcome != "passed":
                ET.SubElement(entry, case.outcome, {"message": _text(case.message)})
    ET.indent(root)
    atomic_write(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _totals(suites: Sequence[Suite]) -> dict[str, str]:
    outcomes = [case.outcome for suite in suites for case in suite.cases]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
        "time": f"{sum(suite.took for suite in suites):.3f}",
    }


def _text(text: str) -> str:
    return text.translate(_FORBIDDEN)
