"""Tests for what all drills have in common: texts, pages, controls, durations, and the scale of time."""

import re
from pathlib import Path
from typing import Any

import pytest

from drills import DRILLS
from drills.lifetimes import Scale
from drills.paths import NEW, PATHS, POOLED, RESUMED
from experiments import Experiment, parameters


@pytest.mark.parametrize("kind", DRILLS, ids=[kind.name for kind in DRILLS])
def test_a_drill_has_its_texts_and_a_control_that_fails(kind: type[Experiment[Any]]) -> None:
    for text in (kind.claim, kind.says, kind.source, kind.production, kind.control.without):
        assert text
    assert kind.control.fails
    full, quick = (kind(parameters.bind(kind.settings, quick=each)).duration() for each in (False, True))
    assert quick <= full <= 300
    assert kind(parameters.bind(kind.settings, quick=True)).predict()


@pytest.mark.parametrize("kind", DRILLS, ids=[kind.name for kind in DRILLS])
def test_each_drill_has_a_page_that_opens_with_a_question_and_answers_its_exercises(
    kind: type[Experiment[Any]],
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "drills" / f"{kind.name}.md").read_text(encoding="utf-8")
    title, opening, *_ = page.split("\n\n")
    assert title.startswith(f"# {kind.name}: ")
    assert re.match(r"\*\*[^*]+\?\*\* .+", opening)
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == ["Theory", "How it is measured", "Measured", "Control", "In production", "Exercises"]
    exercises, _, answers = page.partition("## Exercises")[2].partition("<details><summary>Answers</summary>")
    numbers = [re.findall(r"^(\d)\. ", part, re.MULTILINE) for part in (exercises, answers)]
    assert numbers == [["1", "2", "3"]] * 2


def test_all_drills_quick_take_less_than_ten_minutes() -> None:
    took = sum(kind(parameters.bind(kind.settings, quick=True)).duration() + 3 for kind in DRILLS)
    assert took < 600


@pytest.mark.parametrize(
    ("life", "days", "seconds"),
    [(12.0, 47.0, 12.0), (12.0, 1.0, 0.2553), (120.0, 23.5, 60.0)],
    ids=["life", "day", "half"],
)
def test_a_scale_maps_days_to_seconds_and_back(life: float, days: float, seconds: float) -> None:
    scale = Scale(life)
    assert scale.seconds(days) == pytest.approx(seconds, rel=1e-3)
    assert scale.days(scale.seconds(days)) == pytest.approx(days)
    assert scale.backdate >= 1.0


def test_the_paths_are_those_of_the_catalogue() -> None:
    assert PATHS == (NEW, POOLED, RESUMED)
