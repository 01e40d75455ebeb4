"""Writes the files of each run to the results folder, and the pages that link to them."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from experiments import archive
from experiments.conduct import Outcome
from experiments.repeats import Repeats
from hostfiles.atomic import atomic_write
from reports import pages
from reports.drawing import svg

#: Maximum number of multi-run pages (summaries, comparisons, repeats) that the index lists.
LISTED = 24


def keep(outcome: Outcome, results: Path) -> Path:
    """Write the files of a run to a new folder below *results* and update the index; return the folder.

    On a full disk, the run is marked invalid, and as many files as fit are written, starting with the result.  Each
    file is complete or absent.

    Raises:
        OSError: the result could not be written; the new folder is removed.
    """
    folder = archive.new_folder(results / outcome.result.name)
    try:
        _store(outcome, folder)
        write_index(results)
    except OSError as error:
        outcome.result.interrupted = f"not all of it could be kept: {error.strerror or error}"
        archive.clear(folder)
        try:
            _store(outcome, folder, what_fits=True)
        except OSError:
            archive.clear(folder)
            folder.rmdir()
            raise
        with contextlib.suppress(OSError):
            write_index(results)
    return folder


def write_index(results: Path) -> Path:
    """Write ``index.html``, which lists all runs; return its path."""
    others = [path for path in results.glob("*.html") if path.name != "index.html"]
    others.sort(key=lambda path: path.stem[-len("20260101T000000Z") :], reverse=True)
    page = pages.index_page(archive.runs(results), [path.name for path in others[:LISTED]])
    return _write(results / "index.html", page)


def write_summary(results: Path, title: str, folders: Sequence[Path]) -> Path:
    """Write a summary page about several runs; return its path.

    Args:
        results: results folder.
        title: command that produced the runs; also the base of the file name.
        folders: folders of the runs, in order.
    """
    found = {run.folder: run for run in archive.runs(results)}
    kept = [found[folder] for folder in folders if folder in found]
    words = "".join(c if c.isalnum() else " " for c in title.lower()).split()
    path = results / f"{'-'.join(words)}-{kept[0].time if kept else 'none'}.html"
    return _write(path, pages.summary_page(title, kept))


def write_comparison(results: Path, one: archive.StoredRun, other: archive.StoredRun) -> Path:
    """Write a page that compares two runs; return its path."""
    path = results / f"compare-{one.name}-{one.time}-{other.time}.html"
    return _write(path, pages.comparison_page(one, other))


def write_repeats(results: Path, repeats: Repeats, outcomes: Sequence[Outcome], folders: Sequence[Path | None]) -> Path:
    """Write the page about repeats and the same data as JSON, and update the index; return the path of the page.

    Args:
        results: results folder.
        repeats: evaluation of all runs.
        outcomes: outcome of each run.
        folders: folder of each run; None if the run could not be written.
    """
    last = next((folder.name for folder in reversed(folders) if folder is not None), "none")
    control = "-control" if outcomes[0].result.control else ""
    path = results / f"{repeats.results[0].name}{control}-{repeats.wanted}-times-{last}.html"
    links = ["" if folder is None else f"{folder.parent.name}/{folder.name}/report.html" for folder in folders]
    body = {**repeats.as_json(), "reports": links}
    _write(path.with_suffix(".json"), json.dumps(body, indent=2, default=str) + "\n")
    runs = [(link, outcome.took) for link, outcome in zip(links, outcomes, strict=True)]
    _write(path, pages.repeats_page(repeats, outcomes[0].kind, runs))
    write_index(results)
    return path


def _store(outcome: Outcome, folder: Path, *, what_fits: bool = False) -> None:
    """Write the files of a run, the most important first; with *what_fits*, omit files that cannot be written."""
    result, run = outcome.result, outcome.run
    pictures: dict[str, Callable[[], str]] = {}
    for i, chart in enumerate(run.findings.charts):
        again = f"-{i}" if f"{chart.file_name}.svg" in pictures else ""
        pictures[f"{chart.file_name}{again}.svg"] = partial(svg, chart, standalone=True)
    body = {**result.as_json(), "took_s": round(outcome.took, 2), "pictures": list(pictures)}
    first = {archive.RESULT: lambda: json.dumps(body, indent=2, default=str) + "\n"}
    data: dict[str, Callable[[], str]] = {}
    if run.recorders.series:
        data["counters.json"] = lambda: json.dumps({host: asdict(s) for host, s in run.recorders.series.items()})
    if run.raw:
        data["raw.json"] = lambda: json.dumps(run.raw, default=str)
    if what_fits:
        archive.store(
            folder, first | {"report.html": lambda: _report(outcome, folder)} | pictures | data, what_fits=True
        )
        return
    archive.store(folder, first | pictures | data)
    for name in pictures:
        rasterise(folder / name, (folder / name).with_suffix(".png"))
    archive.store(folder, {"report.html": lambda: _report(outcome, folder)})


def _report(outcome: Outcome, folder: Path) -> str:
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return pages.run_page(outcome.result, outcome.kind, outcome.run.findings.charts, files)


def rasterise(source: Path, target: Path) -> bool:
    """Convert the SVG file *source* to a PNG file of twice its size.

    Returns:
        False if the conversion failed or ``rsvg-convert`` is not installed; *target* then does not exist.
    """
    program = shutil.which("rsvg-convert")
    if program is None:
        return False
    done = subprocess.run([program, "--zoom", "2", "-o", str(target), str(source)], check=False, capture_output=True)
    if done.returncode:
        target.unlink(missing_ok=True)  # on a full disk, the file may be incomplete
    return done.returncode == 0


def _write(path: Path, text: str) -> Path:
    atomic_write(path, text.encode())
    return path
