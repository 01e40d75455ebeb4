"""``firstbyte lesson``: read a lesson, predict, measure, solve its exercise, and grade a class."""

import argparse
import getpass
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from experiments import parameters
from firstbyte import terminal, where
from hostfiles import junit
from hostfiles.layout import RESULTS
from lessons import Course, CourseError, Exercise, Progress, ProgressError, Record, Unit, draw
from lessons.page import page
from lessons.progress import suite
from runtime import InsideLab, LabError, UsageError

#: Width of the scale on which prediction, theory and measurement are drawn, in characters.
SCALE = 48


class NotSolvedError(LabError):
    """The exercise is not solved yet."""

    exit_code = 1


class NotMeasuredError(LabError):
    """The experiment did not give a valid result."""

    exit_code = 4


def lesson(args: argparse.Namespace) -> int:
    """Run a subcommand of ``firstbyte lesson``; return the exit code.

    Raises:
        UsageError: the lesson does not exist, a value is missing, or a progress file is unusable.
        LabError: the lab is not running, or the exercise is not solved.
    """
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list, "read": _read, "predict": _predict, "check": _check, "grade": _grade,
    }  # fmt: skip
    try:
        return verbs[args.verb](args)
    except (CourseError, ProgressError) as error:
        raise UsageError(str(error)) from None


def _list(args: argparse.Namespace) -> int:
    """Print all lessons with the student's progress."""
    progress, _ = _progress(args)
    grade = progress.grade([each.slug for each in Course.load().units])
    if args.json:
        print(json.dumps(grade, indent=2))
        return 0
    table = terminal.table("", "lesson", "part", "measured", "right", "exercise")
    for unit, row in zip(Course.load().units, grade["lessons"], strict=True):
        right = f"{row['predictions_right']} of {row['predictions']}" if row["measured"] else ""
        done = ("✓" if row["measured"] else "", right, "✓" if row["solved"] else "")
        table.add_row(f"{unit.number}", f"{unit.title} ({unit.slug})", unit.part, *done)
    console = terminal.console()
    console.print(table)
    console.print(f"{progress.student}: {grade['points']} of {grade['of']} points; `firstbyte lesson read 1` begins")
    return 0


def _read(args: argparse.Namespace) -> int:
    """Print a lesson, or write lessons to an HTML file for printing."""
    course = Course.load()
    units = course.units if args.lesson == "all" else (course.unit(args.lesson),)
    progress, path = _progress(args)
    texts = []
    for unit in units:
        record = progress.records.get(unit.slug) if args.teacher or args.html else progress.begin(unit.slug)
        whole = args.teacher or args.html is not None or bool(record and record.measured)
        texts.append(_text(unit, progress.student, whole=whole, teacher=args.teacher))
    if args.html is not None:
        try:
            args.html.write_text(page(texts), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--html {args.html}: {error.strerror or error}") from None
        return 0
    if not args.teacher:
        progress.write(path)
    if args.json:
        print(json.dumps([{"lesson": unit.slug, "markdown": text} for unit, text in zip(units, texts, strict=True)]))
    else:
        for text in texts:
            terminal.console().print(Markdown(text))
    return 0


def _text(unit: Unit, student: str, *, whole: bool, teacher: bool) -> str:
    """Return a lesson as Markdown; explanation and exercise are included only if *whole*."""
    parts = [f"# {unit.number}. {unit.title}", unit.question, "## Predict"]
    answers = _theory(unit) if teacher else {}
    for number, each in enumerate(unit.questions, 1):
        unit_text = f" ({each.unit})" if each.unit else ""
        answer = f" **Theory: {answers[each.row]:.4g}; right within ± {each.tolerance:g}.**" if teacher else ""
        parts.append(f"{number}. {each.question}{unit_text}{answer}")
    if not whole:
        values = " ".join("VALUE" for _ in unit.questions)
        parts.append(f"Then: `firstbyte lesson predict {unit.number} {values}`")
        return "\n\n".join(parts)
    parts += ["## Explanation", unit.explanation, "## Exercise", unit.exercise]
    task = draw(unit.slug, student)
    answer = " ANSWER" if task.answer is not None else ""
    parts += [f"**For {student}:** {task.task}", f"Check: `firstbyte lesson check {unit.number}{answer}`"]
    if teacher:
        parts += ["## Model solution", _solution(task)]
    return "\n\n".join(parts)


def _solution(task: Exercise) -> str:
    answer = task.answer
    lines = [] if answer is None else [f"Answer: {answer.value:g} {answer.unit} (± {answer.tolerance:g})"]
    if task.commands:
        lines.append("```sh\n" + "\n".join(task.commands) + "\n```")
    if task.undo:
        lines.append("Afterwards:\n\n```sh\n" + "\n".join(task.undo) + "\n```")
    return "\n\n".join(lines)


def _theory(unit: Unit) -> dict[str, float]:
    """Return the predictions of the experiment's model, keyed by row name."""
    kind = unit.experiment
    return {name: each.value for name, each in kind(parameters.bind(kind.settings, quick=True)).predict().items()}


def _predict(args: argparse.Namespace) -> int:
    """Save the student's predictions, run the experiment, and compare them with theory and measurement."""
    unit = Course.load().unit(args.lesson)
    values = args.value or _asked(unit)
    if len(values) != len(unit.questions):
        questions = "; ".join(each.question for each in unit.questions)
        raise UsageError(
            f"expected {len(unit.questions)} values, one for each question ({questions}); got {len(values)}"
        )
    progress, path = _progress(args)
    record = progress.begin(unit.slug)
    result = _measure(unit)
    record.predicted = list(values)
    record.measured = [result["measurement"][each.row] for each in unit.questions]
    record.right = [
        abs(guess - measured) <= each.tolerance
        for guess, measured, each in zip(values, record.measured, unit.questions, strict=True)
    ]
    progress.write(path)
    if args.json:
        print(json.dumps({"lesson": unit.slug, "verdict": result["verdict"], **_compared(record)}, indent=2))
        return 0
    _show(unit, record, result)
    return 0


def _asked(unit: Unit) -> list[float]:
    """Ask the questions on the terminal; return the values that the student types."""
    if not sys.stdin.isatty():
        return []
    values = []
    for each in unit.questions:
        while True:
            try:
                values.append(float(input(f"{each.question} {f'[{each.unit}] ' if each.unit else ''}")))
                break
            except ValueError:
                print("expected a number, for example 0.5")
            except EOFError:
                raise UsageError("expected a number; the input ended") from None
    return values


def _measure(unit: Unit) -> dict[str, Any]:
    """Run the lesson's experiment; return its result as JSON.

    Raises:
        NotMeasuredError: the run is invalid, for example because this machine is too busy.
        LabError: the lab is not running.
    """
    command = [sys.executable, "-m", "firstbyte", unit.verb, unit.experiment.name, "--quick", "--json"]
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    try:
        result: dict[str, Any] = json.loads(ran.stdout)
    except ValueError:
        raise LabError(f"{unit.command}: exit code {ran.returncode}; see the message above") from None
    lacking = [each.row for each in unit.questions if result["measurement"].get(each.row) is None]
    if result["verdict"] in {"invalid", "skipped"} or lacking:
        reasons = "; ".join(result["reasons"]) or f"not measured: {', '.join(lacking)}"
        raise NotMeasuredError(f"{unit.experiment.name} is {result['verdict']}: {reasons}; try again")
    return result


def _compared(record: Record) -> dict[str, Any]:
    return {"predicted": record.predicted, "measured": record.measured, "right": record.right}


def _show(unit: Unit, record: Record, result: dict[str, Any]) -> None:
    """Print each question with the student's prediction, the theory and the measurement on a scale."""
    console = terminal.console()
    theory: dict[str, float] = {name: value for name, value in result["prediction"].items() if value is not None}
    rows = zip(unit.questions, record.predicted, record.measured, record.right, strict=True)
    for number, (each, guess, measured, right) in enumerate(rows, 1):
        console.print(f"{number}. {each.question}", markup=False)
        console.print(scale({"▲": guess, "○": theory.get(each.row), "●": measured}), markup=False)
        said = [f"▲ you {guess:.4g}", f"● measured {measured:.4g}"]
        if (value := theory.get(each.row)) is not None:
            said.insert(1, f"○ theory {value:.4g}")
        verdict = "right" if right else f"more than {each.tolerance:g} away"
        console.print(f"   {'   '.join(said)} {each.unit}   {'✓' if right else '✗'} {verdict}\n", markup=False)
    console.print(Markdown(unit.explanation))
    console.print(f"\nExercise: `firstbyte lesson read {unit.number}`", markup=False)


def scale(marks: dict[str, float | None]) -> str:
    """Return a line from 0 (or the smallest value, if negative) to the largest value with a mark at each value.

    Marks at the same place are printed next to each other.
    """
    values = [each for each in marks.values() if each is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    line = ["─"] * (SCALE + 1)
    for mark, value in marks.items():
        if value is not None:
            at = round(SCALE * (value - low) / ((high - low) or 1))
            free = [place for place in range(SCALE + 1) if line[place] == "─"]
            line[min(free, key=lambda place: abs(place - at))] = mark
    return f"   {low:.4g} {''.join(line)} {high:.4g}"


def _check(args: argparse.Namespace) -> int:
    """Check an exercise, and save the outcome in the progress file."""
    unit = Course.load().unit(args.lesson)
    progress, path = _progress(args)
    record = progress.begin(unit.slug)
    exercise = draw(unit.slug, progress.student)
    if args.answer is not None and exercise.answer is None:
        raise UsageError(f"expected no answer, because the checker looks at the lab; got {args.answer:g}")
    with where.lab() as lab:
        findings = exercise.check(args.answer, lab.call, record.began)
    solved = all(each.ok for each in findings)
    record.tries += 1
    if solved and record.solved is None:
        record.solved = time.time()
    progress.write(path)
    if args.json:
        rows = [{"ok": each.ok, "text": each.text} for each in findings]
        print(
            json.dumps({"lesson": unit.slug, "student": progress.student, "solved": solved, "findings": rows}, indent=2)
        )
        return 0 if solved else NotSolvedError.exit_code
    console = terminal.console()
    for each in findings:
        console.print(f"{'✓' if each.ok else '✗'} {each.text}", markup=False)
    console.print("solved" if solved else f"not solved yet; the task: {exercise.task}", markup=False)
    if solved and exercise.undo:
        console.print(f"afterwards: {'; '.join(exercise.undo)}", markup=False)
    return 0 if solved else NotSolvedError.exit_code


def _grade(args: argparse.Namespace) -> int:
    """Print the points of the students whose progress files are given."""
    units = Course.load().units
    grades = [Progress.read(path).grade([each.slug for each in units]) for path in args.file]
    if args.junit:
        try:
            junit.write(Path(args.junit), [suite(each) for each in grades])
        except OSError as error:
            raise UsageError(f"--junit {args.junit}: {error.strerror or error}") from None
    if args.json:
        print(json.dumps(grades, indent=2))
        return 0
    numbers = tuple(str(each.number) for each in units)
    table = terminal.table("student", "points", *numbers, numbers=("points",))
    for grade in grades:
        marks = [_mark(row) for row in grade["lessons"]]
        table.add_row(grade["student"], f"{grade['points']} of {grade['of']}", *marks)
    console = terminal.console()
    console.print(table)
    console.print("p: measured after a prediction; e: exercise solved")
    return 0


def _mark(row: dict[str, Any]) -> str:
    return f"{'p' if row['measured'] else ''}{'e' if row['solved'] else ''}" or "–"


def _progress(args: argparse.Namespace) -> tuple[Progress, Path]:
    """Return the student's progress and the path of its file."""
    student = args.student or _login()
    if not re.fullmatch(r"[\w .@-]{1,60}", student):
        raise UsageError(f"--student: expected up to 60 letters, digits, spaces or any of .@_-; got {student!r}")
    folder = RESULTS if InsideLab.is_here() else Path()
    path = args.progress or folder / f"lesson-{re.sub(r'[^a-z0-9]+', '-', student.lower())}.json"
    return Progress.read(path, student), path


def _login() -> str:
    """Return the user's login name; inside the lab, whose users are not people, "student"."""
    return "student" if InsideLab.is_here() else getpass.getuser()
