"""Tests for a student's progress file and for the grade that is computed from it."""

import json

import pytest

from lessons import Progress, ProgressError, Record
from lessons.progress import suite


def test_progress_survives_its_file(tmp_path):
    path = tmp_path / "ann.json"
    progress = Progress("ann", {"names": Record(5.0, [3.0], [4.0], [False], 2, 9.0)})
    progress.write(path)
    assert Progress.read(path, "ann") == progress


def test_a_new_student_has_no_progress_yet(tmp_path):
    assert Progress.read(tmp_path / "none.json", "ann") == Progress("ann")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not a progress file"),
        ("[]", "not a progress file"),
        ('{"format": 2, "student": "ann", "records": {}}', "expected format 1, got 2"),
        ('{"format": 1, "student": "ann", "records": {"names": {"cheat": 1}}}', "not a progress file"),
        ('{"format": 1, "student": "bob", "records": {}}', "expected the progress of 'ann', got that of 'bob'"),
    ],
    ids=["not JSON", "a list", "format", "unknown key", "another student"],
)
def test_another_file_is_refused(tmp_path, content, says):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ProgressError, match=says):
        Progress.read(path, "ann")


def test_a_missing_file_cannot_be_graded(tmp_path):
    with pytest.raises(ProgressError, match="no such file"):
        Progress.read(tmp_path / "none.json")


def test_a_wrong_prediction_costs_no_point_and_an_unsolved_exercise_does():
    progress = Progress("ann", {
        "names": Record(5.0, [3.0, 1.0], [4.0, 1.0], [False, True], 1, 9.0),
        "ttl": Record(5.0, [3.0], [4.0], [False], 3, None),
    })  # fmt: skip
    grade = progress.grade(["names", "ttl", "outage"])
    assert (grade["points"], grade["of"]) == (3, 6)
    assert json.loads(json.dumps(grade))["lessons"][0]["predictions_right"] == 1
    assert [case.outcome for case in suite(grade).cases] == ["passed", "failure", "failure"]
