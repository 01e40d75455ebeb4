"""Tests for the attributes and behaviour that every scenario and drill must have, without a lab."""

import asyncio
from pathlib import Path

import pytest

from drills import DRILLS
from experiments import parameters
from experiments.result import Quantity, Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from scenarios import SCENARIOS
from tests.experiments.lab import MemoryLab

EVERY = (*SCENARIOS, *DRILLS)
DOCS = Path(__file__).parents[2] / "docs" / "scenarios"


def made(kind, *, negative=False):
    return kind(parameters.bind(kind.settings, quick=True), negative=negative)


@pytest.mark.parametrize("kind", EVERY, ids=lambda k: k.name)
def test_it_has_a_claim_advice_and_a_control(kind):
    assert kind.claim.endswith(".")
    assert kind.production
    assert kind.control.without
    assert kind.control.fails


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_it_cites_the_textbook_and_the_source_of_its_theory(kind):
    assert kind.says.startswith("The textbook says")
    assert kind.source


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
@pytest.mark.parametrize("negative", [False, True])
def test_it_predicts_before_it_measures(kind, negative):
    prediction = made(kind, negative=negative).predict()
    assert prediction
    assert all(isinstance(each, Quantity) for each in prediction.values())


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind.lessons], ids=lambda k: k.name)
def test_each_lesson_asks_for_a_predicted_row_in_its_unit(kind, quick):
    prediction = kind(parameters.bind(kind.settings, quick=quick)).predict()
    assert 2 <= len(kind.lessons) <= 3
    for each in kind.lessons:
        assert each.question.endswith("?")
        assert prediction[each.row].unit == each.unit
        assert each.tolerance > 0


@pytest.mark.parametrize("kind", EVERY, ids=lambda k: k.name)
def test_every_parameter_has_help_and_bounds(kind):
    for each in parameters.describe(kind.settings):
        assert each["help"]
        if isinstance(each["full"], (int, float)) and not isinstance(each["full"], bool):
            assert each["low"] <= each["full"] <= each["high"]


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_a_quick_run_takes_at_most_45_seconds(kind):
    assert made(kind).duration() <= 45


def test_the_seed_determines_an_interleaved_order(tmp_path):
    async def order():
        run = Run(MemoryLab(), Result("x", "", {}), UndoLog(tmp_path))
        run.rng.seed(3)
        return list(run.interleaved("abc", 2))

    assert asyncio.run(order()) == asyncio.run(order())


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.name)
def test_its_page_has_picture_theory_method_and_exercises_with_answers(kind):
    page = DOCS / f"{kind.name}.md"
    text = page.read_text(encoding="utf-8")
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert {"Theory", "How it is measured", "What the textbook says"} <= set(titles)
    assert titles[-1] == "Exercises"
    assert "<details>" in text.partition("## Exercises")[2]
    assert f"]({kind.name}.svg)" in text.partition("## ")[0]
    assert (DOCS / f"{kind.name}.svg").stat().st_size > 1000
