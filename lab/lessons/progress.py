"""A student's progress, in a JSON file that the student keeps and submits for grading."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hostfiles.atomic import atomic_write
from hostfiles.junit import Case, Suite

#: Version of the file format.
FORMAT = 1


class ProgressError(Exception):
    """The file is not a progress file, or belongs to another student."""


@dataclass(slots=True)
class Record:
    """Progress in one lesson."""

    #: Time at which the student first read the lesson, in seconds since 1970.
    began: float
    #: The student's predictions, in the order of the questions; empty before the measurement.
    predicted: list[float] = field(default_factory=list)
    #: The measured values, in the order of the questions; empty before the measurement.
    measured: list[float] = field(default_factory=list)
    #: Whether each prediction was within the question's tolerance.
    right: list[bool] = field(default_factory=list)
    #: Number of times that the exercise was checked.
    tries: int = 0
    #: Time at which the exercise was first solved, in seconds since 1970; None before that.
    solved: float | None = None


@dataclass(slots=True)
class Progress:
    """Progress of one student: a record for each lesson, by the lesson's name."""

    student: str
    records: dict[str, Record] = field(default_factory=dict)

    @staticmethod
    def read(path: Path, student: str | None = None) -> "Progress":
        """Read the file at *path*; if it does not exist and *student* is given, return empty progress.

        Raises:
            ProgressError: the file is malformed, cannot be read, or belongs to another student.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise ProgressError(f"{path}: expected format {FORMAT}, got {document['format']}")
            records = {name: Record(**each) for name, each in document["records"].items()}
            found = Progress(document["student"], records)
        except FileNotFoundError:
            if student is None:
                raise ProgressError(f"{path}: no such file") from None
            return Progress(student)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProgressError(f"{path}: not a progress file of `firstbyte lesson` ({error})") from None
        if student is not None and found.student != student:
            raise ProgressError(f"{path}: expected the progress of {student!r}, got that of {found.student!r}")
        return found

    def write(self, path: Path) -> None:
        """Write the progress to *path* atomically.

        Raises:
            ProgressError: the file cannot be written.
        """
        document = {
            "format": FORMAT,
            "student": self.student,
            "records": {n: asdict(r) for n, r in self.records.items()},
        }
        try:
            atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())
        except OSError as error:
            raise ProgressError(f"{path}: cannot be written: {error.strerror or error}") from None

    def begin(self, slug: str) -> Record:
        """Return the record of a lesson; create it if the student has not read the lesson before."""
        return self.records.setdefault(slug, Record(began=time.time()))

    def grade(self, slugs: list[str]) -> dict[str, Any]:
        """Return the student's points: one per lesson for a measured prediction, and one for a solved exercise.

        A wrong prediction also earns its point, because predictions are made in order to be compared.
        """
        rows: list[dict[str, Any]] = []
        for slug in slugs:
            record = self.records.get(slug)
            rows.append({
                "lesson": slug,
                "measured": bool(record and record.measured),
                "predictions_right": sum(record.right) if record else 0,
                "predictions": len(record.right) if record else 0,
                "tries": record.tries if record else 0,
                "solved": bool(record and record.solved is not None),
            })  # fmt: skip
        points = sum(row["measured"] + row["solved"] for row in rows)
        return {"student": self.student, "points": points, "of": 2 * len(slugs), "lessons": rows}


def suite(grade: dict[str, Any]) -> Suite:
    """Return a student's grade as a JUnit test suite: one test case per lesson, passed if the exercise is solved."""
    cases = [
        Case(row["lesson"]) if row["solved"] else Case(row["lesson"], "failure", "exercise not solved")
        for row in grade["lessons"]
    ]
    return Suite(grade["student"], cases, 0.0)
