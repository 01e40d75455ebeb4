"""Tests for JUnit XML."""

import xml.etree.ElementTree as ET
from pathlib import Path

from hostfiles import junit
from hostfiles.junit import Case, Suite


def test_a_file_holds_suites_with_their_cases_and_totals(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    cases = [
        Case("round trips"),
        Case("p99 < 80 ms", "failure", "got 81 ms"),
        Case("gate", "error", "no data"),
        Case("x", "skipped"),
    ]
    junit.write(
        path, [Suite("handshake", cases, 1.5, "2026-11-28T12:00:00+00:00", [("seed", "1")]), Suite("pool", [], 2.0)]
    )
    root = ET.fromstring(path.read_text())  # noqa: S314 - a file that the test made
    assert root.attrib == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "3.500"}
    first, second = root
    assert (first.get("name"), first.get("timestamp")) == ("handshake", "2026-11-28T12:00:00+00:00")
    assert [each.attrib for each in first.iter("property")] == [{"name": "seed", "value": "1"}]
    children = {case.get("name"): [(each.tag, each.get("message")) for each in case] for case in first.iter("testcase")}
    assert children == {
        "round trips": [],
        "p99 < 80 ms": [("failure", "got 81 ms")],
        "gate": [("error", "no data")],
        "x": [("skipped", "")],
    }
    assert len(second) == 0


def test_characters_that_xml_forbids_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    junit.write(path, [Suite("a<b>&\x00", [Case("\x1b[31mred", "failure", "\ud800")], 0.0)])
    root = ET.fromstring(path.read_bytes())  # noqa: S314 - a file that the test made
    assert root[0].get("name") == "a<b>&\N{REPLACEMENT CHARACTER}"
    assert [each.get("message") for each in root.iter("failure")] == ["\N{REPLACEMENT CHARACTER}"]
