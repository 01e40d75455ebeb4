"""Stores, finds and compares runs in the results folder; `reports` renders them.

Each run has a folder ``NAME/TIME/`` with ``result.json`` and its other files; TIME is in UTC.
"""

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostfiles.atomic import atomic_write

#: Maximum accepted size of a result.json in bytes; the files that firstbyte writes have a few kilobytes.
MAX_RESULT = 4 << 20
#: Format of a run folder's name: UTC time, so that sorting the names as text sorts the runs by time.
TIME = "%Y%m%dT%H%M%SZ"
#: Name of the file with the result of a run (`Result.as_json`).
RESULT = "result.json"


class ArchiveError(Exception):
    """The requested run does not exist; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run stored in the results folder."""

    name: str
    #: Name of the run's folder: its UTC time in the format `TIME`.
    time: str
    folder: Path
    #: Parsed content of the run's result.json.
    body: dict[str, Any]

    @property
    def page(self) -> str:
        """Return the name of the file to open: the report, or result.json if the disk was too full for a report."""
        return "report.html" if (self.folder / "report.html").exists() else RESULT

    @property
    def picture(self) -> str:
        """Return the file name of the first chart, which is the most important one; "" if the run has no chart."""
        found = sorted(self.folder.glob("*.svg"), key=lambda path: (path.stem != self.name, path.stat().st_mtime))
        present = [path.name for path in found]
        ordered = [name for name in self.body.get("pictures", ()) if name in present]
        return next(iter(ordered or present), "")

    @property
    def verdict(self) -> str:
        """Return pass, fail, invalid or skipped."""
        return str(self.body.get("verdict", "invalid"))

    @property
    def claim(self) -> str:
        """Return the claim (hypothesis) of the experiment."""
        return str(self.body.get("claim", ""))

    @property
    def control(self) -> bool:
        """Return whether the run was the negative control."""
        return bool(self.body.get("control"))

    @property
    def quick(self) -> bool:
        """Return whether the run was a quick run."""
        return bool(self.body.get("quick"))


def new_folder(parent: Path) -> Path:
    """Create a folder below *parent*, named after the current second or the next second without a folder; return it."""
    parent.mkdir(parents=True, exist_ok=True)
    moment = dt.datetime.now(dt.UTC)
    while True:
        folder = parent / moment.strftime(TIME)
        try:
            folder.mkdir()
        except FileExistsError:  # another run began in the same second
            moment += dt.timedelta(seconds=1)
        else:
            return folder


def store(folder: Path, files: Mapping[str, Callable[[], str]], *, what_fits: bool = False) -> None:
    """Write the files of a run in the given order; each write is atomic.

    Args:
        folder: folder of the run.
        files: for each file name, a function that returns the content.
        what_fits: omit files that cannot be written, for example on a full disk; only the first file is required.

    Raises:
        OSError: the first file or, without *what_fits*, any other file could not be written.
    """
    for number, (name, text) in enumerate(files.items()):
        with contextlib.suppress(OSError) if what_fits and number else contextlib.nullcontext():
            atomic_write(folder / name, text().encode())


def clear(folder: Path) -> None:
    """Remove all files from the folder of a run."""
    for path in folder.iterdir():
        path.unlink()


def runs(results: Path) -> list[StoredRun]:
    """Return all runs, newest first."""
    found = []
    for path in results.glob(f"*/*/{RESULT}"):
        try:
            if path.stat().st_size > MAX_RESULT:
                continue
            body = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the file was just removed, or is corrupt
        if isinstance(body, dict):
            found.append(StoredRun(path.parent.parent.name, path.parent.name, path.parent, body))
    return sorted(found, key=lambda run: run.time, reverse=True)


def find(results: Path, text: str) -> StoredRun:
    """Return the run that *text* names.

    Args:
        results: results folder.
        text: ``NAME`` (its latest run), ``NAME~1`` (the run before the latest), ``NAME/TIME``, or a run folder's path.

    Raises:
        ArchiveError: no run matches *text*.
    """
    found = runs(results)
    path = Path(text)
    name, _, back = text.partition("~")
    if back.isdecimal() or not back:
        of_name = [run for run in found if run.name == name]
        if len(of_name) > int(back or 0):
            return of_name[int(back or 0)]
    for run in found:
        if text.strip("/") == f"{run.name}/{run.time}" or (path.exists() and path.resolve() == run.folder.resolve()):
            return run
    known = ", ".join(sorted({run.name for run in found})) or "none yet"
    raise ArchiveError(f"expected a run (NAME, NAME~1, NAME/TIME or a folder; there are: {known}), got {text!r}")


def compare(a: StoredRun, b: StoredRun) -> list[dict[str, Any]]:
    """Return one row per quantity that both runs measured.

    Each row has the predictions, the measurements, the relative change, and whether the confidence intervals overlap.
    """
    rows = []
    for name, one in a.body.get("measurement", {}).items():
        other = b.body.get("measurement", {}).get(name)
        if not _is_number(one) or not _is_number(other):
            continue
        intervals = [_interval(run, name, value) for run, value in ((a, one), (b, other))]
        complete = all(_is_number(end) for interval in intervals for end in interval)
        overlap = intervals[0][0] <= intervals[1][1] and intervals[1][0] <= intervals[0][1] if complete else None
        rows.append(
            {
                "name": name,
                "unit": a.body.get("unit", {}).get(name, ""),
                "predicted": [run.body.get("prediction", {}).get(name) for run in (a, b)],
                "measured": [one, other],
                "interval": intervals,
                "change": (other - one) / one if one else None,
                "intervals_meet": overlap,
            }
        )
    return rows


def changed_parameters(a: StoredRun, b: StoredRun) -> dict[str, tuple[Any, Any]]:
    """Return the parameters whose values differ, keyed by name: each with its values in *a* and in *b*."""
    one, other = a.body.get("parameters", {}), b.body.get("parameters", {})
    return {name: (one.get(name), value) for name, value in other.items() if one.get(name) != value}


def _interval(run: StoredRun, name: str, value: float) -> Sequence[Any]:
    return run.body.get("interval", {}).get(name) or [value, value]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
