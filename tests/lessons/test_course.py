"""Tests that the texts of the course are complete, and that exercises accept model answers and refuse wrong ones."""

import pytest

from experiments import parameters
from lessons import EXERCISES, Course, CourseError, draw
from lessons.course import _unit
from lessons.page import page

UNITS = Course.load().units
TEXT = "# A title (names; run resolution)\n\n## Question\nq\n## Explanation\ne\n## Exercise\nx\n"
STUDENTS = [f"student {number}" for number in range(40)]


def test_there_are_twelve_lessons_in_four_parts():
    assert [each.number for each in UNITS] == list(range(1, 13))
    assert list(dict.fromkeys(each.part for each in UNITS)) == ["names", "connections", "identity", "all together"]
    assert [each.slug for each in UNITS] == list(EXERCISES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda each: each.slug)
def test_the_model_of_the_experiment_answers_each_question(unit):
    kind = unit.experiment
    predicted = kind(parameters.bind(kind.settings, quick=True)).predict()
    assert len(unit.questions) in {2, 3}
    for each in unit.questions:
        assert predicted[each.row].unit == each.unit


@pytest.mark.parametrize("unit", UNITS, ids=lambda each: each.slug)
def test_each_lesson_has_a_figure_and_no_line_too_wide_for_paper(unit):
    assert "```" in unit.question
    figure = unit.question.split("```")[1]
    assert all(len(line) <= 84 for line in figure.splitlines())


@pytest.mark.parametrize("slug", EXERCISES)
def test_numbers_belong_to_the_student(slug):
    assert draw(slug, "ann").task == draw(slug, "ann").task
    assert len({draw(slug, each).task for each in STUDENTS}) > len(STUDENTS) / 5 or slug == "renewal"


@pytest.mark.parametrize("slug", [slug for slug in EXERCISES if draw(slug, "ann").answer is not None])
@pytest.mark.parametrize("student", STUDENTS[:5])
def test_the_model_answer_is_right_and_others_are_not(slug, student):
    answer = draw(slug, student).answer
    assert answer is not None
    assert answer.judge(answer.value).ok
    assert not answer.judge(answer.value * 1.3 + 1).ok
    assert not answer.judge(None).ok
    assert f"{answer.value:g}" not in answer.judge(1e9).text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1-names.md", TEXT),
        ("01-names.md", TEXT.replace("## Exercise\nx\n", "")),
        ("01-names.md", TEXT.replace("run resolution", "run nothing")),
        ("01-names.md", TEXT.replace("run resolution", "run")),
    ],
    ids=["name", "heading", "experiment", "title"],
)
def test_a_malformed_file_is_refused(name, text):
    assert _unit("01-names.md", TEXT).title == "A title"
    with pytest.raises(CourseError):
        _unit(name, text)


def test_a_lesson_has_a_number_and_a_name():
    course = Course.load()
    assert course.unit("4") is course.unit("handshake")
    with pytest.raises(CourseError, match="1 names, 2 ttl"):
        course.unit("13")


def test_the_printed_page_escapes_html_in_a_lesson():
    assert "<script>" not in page(["# a\n\n<script>alert(1)</script>"])
