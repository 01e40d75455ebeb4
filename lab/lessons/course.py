"""The texts of the course: one Markdown file per lesson in the folder ``course``, in the order of their numbers."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from drills import DRILLS
from experiments import Experiment, Lesson
from scenarios import SCENARIOS

#: Name of a lesson's file, and the headings inside the file, in this order.
FILE = re.compile(r"(\d\d)-([a-z-]+)\.md")
HEADINGS = ("Question", "Explanation", "Exercise")
#: First line of a lesson's file: its title, and in parentheses its part of the course and its experiment.
TITLE = re.compile(r"# (?P<title>.+) \((?P<part>[\w ]+); (?P<verb>run|drill) (?P<experiment>[a-z-]+)\)")


class CourseError(Exception):
    """A lesson does not exist, or its file is malformed."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One lesson of the course."""

    number: int
    #: Name of the lesson in its file name; also the key of its exercise in `lessons.exercises.EXERCISES`.
    slug: str
    title: str
    #: Part of the course: names, connections, identity, or "all together".
    part: str
    #: Command that runs the experiment: ``run`` or ``drill``.
    verb: str
    experiment: type[Experiment[Any]]
    #: Markdown texts: the introduction to the questions, the explanation, and the introduction to the exercise.
    question: str
    explanation: str
    exercise: str

    @property
    def questions(self) -> tuple[Lesson, ...]:
        """The questions that the student answers before the measurement."""
        return self.experiment.lessons

    @property
    def command(self) -> str:
        """Command line that repeats the measurement."""
        return f"firstbyte {self.verb} {self.experiment.name} --quick"


@dataclass(frozen=True, slots=True)
class Course:
    """All lessons, in order."""

    units: tuple[Unit, ...]

    @staticmethod
    @cache
    def load() -> "Course":
        """Read the lessons that this package contains.

        Raises:
            CourseError: a file is malformed.
        """
        found = sorted(files("lessons").joinpath("course").iterdir(), key=lambda each: each.name)
        return Course(tuple(_unit(each.name, each.read_text(encoding="utf-8")) for each in found))

    def unit(self, word: str) -> Unit:
        """Return the lesson with the number or name *word*.

        Raises:
            CourseError: there is no such lesson.
        """
        for each in self.units:
            if word in {str(each.number), each.slug}:
                return each
        names = ", ".join(f"{each.number} {each.slug}" for each in self.units)
        raise CourseError(f"expected the number or the name of a lesson ({names}); got {word!r}")


def _unit(name: str, text: str) -> Unit:
    """Parse one lesson's file; raise `CourseError` if it is malformed."""
    first, _, body = text.partition("\n")
    named, titled = FILE.fullmatch(name), TITLE.fullmatch(first)
    parts = re.split(r"^## (.+)\n", body, flags=re.MULTILINE)
    if named is None or titled is None or tuple(parts[1::2]) != HEADINGS:
        raise CourseError(
            f"{name}: expected a file NN-name.md that begins with `# title (part; run|drill experiment)` and has the "
            f"headings {', '.join(HEADINGS)}"
        )
    every = {"run": SCENARIOS, "drill": DRILLS}[titled["verb"]]
    experiment = next((each for each in every if each.name == titled["experiment"]), None)
    if experiment is None or not experiment.lessons:
        raise CourseError(f"{name}: {titled['experiment']} does not exist or has no questions")
    question, explanation, exercise = (each.strip() for each in parts[2::2])
    return Unit(
        int(named[1]), named[2], titled["title"], titled["part"], titled["verb"], experiment,
        question, explanation, exercise,
    )  # fmt: skip
