import asyncio
import json
import os

import pytest

import reports
from experiments import Chart, Dots, Order, Panel, Repeats, archive, conduct
from reports import pages
from reports.site import rasterise
from reports.strip import strip
from tests.experiments.lab import MemoryLab
from tests.experiments.test_conduct import Interrupted, Some, run
from tests.experiments.test_repeats import repeats, result


def test_a_stored_run_is_found_listed_and_compared(tmp_path):
    first = reports.keep(run(Some, MemoryLab(), tmp_path), tmp_path)
    reports.keep(run(Some, MemoryLab(), tmp_path, given=("lost=2",)), tmp_path)
    assert {path.name for path in first.iterdir()} >= {"result.json", "report.html", "lost.svg", "counters.json"}
    newest, before = archive.find(tmp_path, "some"), archive.find(tmp_path, "some~1")
    assert (newest.verdict, before.verdict) == ("fail", "pass")
    (row,) = archive.compare(before, newest)
    assert (row["measured"], row["intervals_meet"]) == ([0, 2], False)
    assert "some" in (tmp_path / "index.html").read_text()


class TwoPictures(Some):
    def conclude(self, run):
        super().conclude(run)
        run.findings.chart(Chart("Another picture", [Panel([Dots("lost", [(0, 1, 1, 1)])])], x="seconds"))


def test_the_first_picture_stays_the_first_after_a_copy(tmp_path):
    folder = reports.keep(run(TwoPictures, MemoryLab(), tmp_path), tmp_path)
    assert (folder / "another-picture.svg").exists()
    os.utime(folder / "another-picture.svg", (0, 0))  # simulates a copy that lost the modification time
    kept = archive.find(tmp_path, "some")
    reports.write_index(tmp_path)
    summary = reports.write_summary(tmp_path, "all", [folder]).read_text()
    written = [(tmp_path / "index.html").read_text(), summary, pages.comparison_page(kept, kept)]
    assert kept.picture == "lost.svg"
    assert all("lost.svg" in page and "another-picture" not in page for page in written)


def test_a_summary_has_every_run(tmp_path):
    folders = [reports.keep(run(Some, MemoryLab(), tmp_path, given=(f"lost={n}",)), tmp_path) for n in (0, 2)]
    page = reports.write_summary(tmp_path, "firstbyte run all --quick", folders)
    text = page.read_text()
    assert page.name.startswith("firstbyte-run-all-quick-2")
    assert text.count("<figure>") == 2
    assert "lost: expected 0 ± 0, got 2" in text


def test_an_unknown_run_is_reported_in_one_line(tmp_path):
    with pytest.raises(archive.ArchiveError, match=r"expected a run .*none yet.*got 'other'"):
        archive.find(tmp_path, "other")


def test_a_strip_has_a_dot_for_every_run_and_shows_its_scale():
    _, p99 = repeats(result(4), result(6), result(50)).rows
    drawn = strip(p99, ["pass", "pass", "fail"], (None, 10.0))
    assert (drawn.count("<circle"), drawn.count("class='ring'"), drawn.count("class='band'")) == (3, 1, 1)
    assert ">−44<" in drawn


def test_repeats_are_kept_as_json_and_as_a_page_that_the_index_lists(tmp_path):
    outcomes = [asyncio.run(conduct(Some, Order(), MemoryLab(), tmp_path, addresses={})) for _ in range(3)]
    folders = [reports.keep(each, tmp_path) for each in outcomes]
    found = Repeats(tuple(each.result for each in outcomes), 3)
    page = reports.write_repeats(tmp_path, found, outcomes, folders)
    body = json.loads(page.with_suffix(".json").read_text())
    assert (body["verdict"], body["verdicts_agree"], body["injections_identical"]) == ("pass", True, True)
    assert [each["text"] for each in body["injections"]] == [
        "access:near rtt_ms 80",
        "edge: naive_reload on",
        "ca: clock +3600 s",
    ]
    assert page.read_text().count('report.html">run ') == 3
    assert "firstbyte run some --seed 1 --times 3" in page.read_text()
    assert page.name in (tmp_path / "index.html").read_text()


def test_without_a_program_for_it_no_png_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert (rasterise(tmp_path / "a.svg", tmp_path / "a.png"), list(tmp_path.iterdir())) == (False, [])


def test_a_control_that_fails_as_it_must_is_not_shown_as_a_failure(tmp_path):
    folder = reports.keep(run(Some, MemoryLab(), tmp_path, control=True), tmp_path)
    (kept,) = archive.runs(tmp_path)
    summary = reports.write_summary(tmp_path, "all", [folder]).read_text()
    for page in ((folder / "report.html").read_text(), (tmp_path / "index.html").read_text(), summary):
        assert 'class="verdict pass">control failed as it must<' in page
        assert 'class="verdict fail"' not in page
    assert kept.verdict == "fail"


def test_a_report_tells_the_number_and_the_advice_before_the_evidence(tmp_path):
    class Advising(Some):
        production = "Keep everything."
        says = "Things are lost."

        def conclude(self, run):
            super().conclude(run)
            run.findings.gate("noise", "0", "0", ok=True)

    text = (reports.keep(run(Advising, MemoryLab(), tmp_path), tmp_path) / "report.html").read_text()
    order = (
        "Nothing is lost.", "Lost: theory predicts 0, and this run measured 0.", "Keep everything.", "<figure>",
        "What was checked", "Predicted and measured", "Was the machine fit", "How to repeat it", "Things are lost.",
    )  # fmt: skip
    assert sorted(order, key=text.index) == list(order)


def test_runs_are_test_suites_for_ci(tmp_path):
    for given, negative in ((("lost=0",), False), (("lost=2",), False), ((), True)):
        reports.keep(run(Some, MemoryLab(), tmp_path, given=given, control=negative), tmp_path)
    reports.keep(run(Interrupted, MemoryLab(), tmp_path), tmp_path)
    interrupted, control, lost, kept = map(reports.suite, archive.runs(tmp_path))
    assert [(case.name, case.outcome) for case in kept.cases] == [("lost", "passed")]
    assert [(case.outcome, case.message) for case in lost.cases] == [("failure", "expected 0 ± 0, got 2")]
    assert (control.name, [(case.name, case.outcome) for case in control.cases]) == (
        "some (control)",
        [("control fails as it must", "passed")],
    )
    assert [(case.name, case.outcome) for case in interrupted.cases] == [("validity", "error")]
    assert ("lost", "2") in lost.properties
    assert kept.began.startswith("20")


def test_text_from_an_experiment_is_escaped_on_every_page(tmp_path):
    class Hostile(Some):
        claim = "<script>alert(1)</script>"

        def conclude(self, run):
            run.findings.check("<b>lost</b>", "<i>", "</td>", ok=False)
            run.findings.fact("<u>", ["<s>"])

    outcome = run(Hostile, MemoryLab(), tmp_path)
    folder = reports.keep(outcome, tmp_path)
    found = Repeats((outcome.result,), 1)
    written = [
        folder / "report.html",
        tmp_path / "index.html",
        reports.write_summary(tmp_path, "all", [folder]),
        reports.write_repeats(tmp_path, found, [outcome], [folder]),
        reports.write_comparison(tmp_path, *[archive.find(tmp_path, "some")] * 2),
    ]
    for page in written:
        text = page.read_text()
        assert not [tag for tag in ("<script", "<b>lost", "<i>", "<u>", "<s>") if tag in text]


def test_a_result_without_the_usual_fields_is_listed_all_the_same(tmp_path):
    folder = archive.new_folder(tmp_path / "other")
    archive.store(folder, {archive.RESULT: lambda: "{}"})
    index = reports.write_index(tmp_path).read_text()
    assert f"other/{folder.name}/result.json" in index
    reports.write_summary(tmp_path, "all", [folder])
    reports.write_comparison(tmp_path, *archive.runs(tmp_path) * 2)
