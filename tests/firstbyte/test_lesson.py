"""Tests for ``firstbyte lesson`` without a lab."""

import json

import pytest

from firstbyte.cli import main
from firstbyte.lesson import SCALE, scale


def test_a_lesson_is_read_before_its_explanation(tmp_path, capsys):
    words = ["--student", "ann", "--progress", str(tmp_path / "ann.json")]
    assert main(["lesson", "read", "4", *words]) == 0
    read = capsys.readouterr().out
    assert "firstbyte lesson predict 4 VALUE VALUE VALUE" in read
    assert "Count the arrows" not in read
    assert list(json.loads((tmp_path / "ann.json").read_text())["records"]) == ["handshake"]


def test_the_course_prints_as_html_with_model_answers(tmp_path):
    page = tmp_path / "course.html"
    assert main(["lesson", "read", "all", "--teacher", "--student", "ann", "--html", str(page)]) == 0
    assert page.read_text().count("<section>") == 12
    assert "Model solution" in page.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("read", "13"), "expected the number or the name of a lesson (1 names, "),
        (("predict", "4", "3"), "expected 3 values, one for each question"),
        (("predict", "4", "three"), "expected a number, got 'three'"),
        (("check", "names", "5"), "expected no answer, because the checker looks at the lab; got 5"),
        (("grade", "none.json"), "none.json: no such file"),
        (("list", "--student", "../x"), "--student: expected up to 60 letters"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lesson", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_marks_at_the_same_place_stand_next_to_each_other():
    line = scale({"▲": 3.0, "○": 3.0, "●": 3.0})
    assert sorted(line.split()[1].strip("─")) == sorted("▲○●")
    assert len(line.split()[1]) == SCALE + 1


def test_the_scale_begins_at_the_smallest_value_if_it_is_negative():
    assert scale({"▲": -1.0, "●": 1.0}).split()[0] == "-1"
