"""Command-line parser of ``firstbyte lesson`` and its subcommands."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def add_lesson(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the ``lesson`` command; *add* registers a command with the command-line parser."""
    lesson = add(
        "lesson",
        "a course of twelve lessons: predict, measure, and solve an exercise that a checker verifies",
        "lesson list",
        "lesson read 1",
        "lesson predict 1 3 60 20",
        "lesson check 1",
        "lesson read all --teacher --html course.html",
        "lesson grade lesson-*.json --json",
    )
    verbs = lesson.add_subparsers(dest="verb", required=True, metavar="list|read|predict|check|grade")

    def verb(name: str, about: str, *, one: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, description=about[:1].upper() + about[1:] + ".")
        made.set_defaults(parser=made)
        made.add_argument("--json", action="store_true", help="as JSON")
        if one:
            made.add_argument("lesson", metavar="LESSON", help="number or name, see `firstbyte lesson list`")
        if name != "grade":
            made.add_argument(
                "--student", metavar="NAME", help="determines the numbers in the exercises (default: your login)"
            )
            made.add_argument("--progress", type=Path, metavar="FILE", help="default: lesson-NAME.json in this folder")
        return made

    verb("list", "list the lessons and the student's progress", one=False)
    read = verb("read", "print a lesson (or all); explanation and exercise follow once you have measured")
    read.add_argument("--teacher", action="store_true", help="everything, with this student's model answers")
    read.add_argument("--html", type=Path, metavar="FILE", help="write to FILE instead, for printing")
    predict = verb("predict", "compare predictions with theory and a measurement (up to a minute)")
    predict.add_argument(
        "value", nargs="*", type=_number, metavar="VALUE", help="one per question; without values, you are asked"
    )
    check = verb("check", "check the exercise; exit code 1: not solved yet")
    check.add_argument("answer", nargs="?", type=_number, metavar="ANSWER", help="your result, if it is a number")
    grade = verb("grade", "print the points of a class", one=False)
    grade.add_argument("file", nargs="+", type=Path, metavar="FILE", help="progress files of the students")
    grade.add_argument(
        "--junit", metavar="FILE", help="write the exercises to FILE as JUnit XML, one suite per student"
    )


def _number(word: str) -> float:
    """Parse a number; commas that separate thousands are ignored."""
    try:
        value = float(word.replace(",", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {word!r}")
    return value
