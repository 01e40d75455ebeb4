"""Renders HTML pages from the templates of this package: one run, repeats, index, summary and comparison.

Pages need no network: styles and charts are inline, and only the charts of other runs are loaded, from the results
folder.
"""

import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments import parameters
from experiments.archive import StoredRun, changed_parameters, compare
from experiments.chart import Chart, Ladder
from experiments.estimate import number
from experiments.experiment import Experiment
from experiments.repeats import Repeats, Spread
from experiments.result import Result, headline, tone
from reports.drawing import NARROW, svg
from reports.palette import style
from reports.strip import strip

Kind = type[Experiment[Any]]


def run_page(result: Result, kind: Kind, charts: Sequence[Chart | Ladder], files: Iterable[str] = ()) -> str:
    """Return the report of one run as HTML.

    Args:
        result: result of the run.
        kind: class of the experiment.
        charts: charts of the run, the most important first.
        files: names of the other files in the run's folder, to which the report links.
    """
    figures = [
        {
            "title": chart.title,
            "caption": chart.caption,
            "wide": Markup(svg(chart)),  # noqa: S704 - our own SVG; `svg` escapes all text
            "narrow": Markup(svg(chart, width=NARROW)),  # noqa: S704 - our own SVG; `svg` escapes all text
        }
        for chart in charts
    ]
    return _render(
        "run.html",
        title=f"{result.name}: {headline(result.verdict, control=bool(result.control))}",
        root="../../",
        result=result,
        sentence=sentence(result),
        kind=kind,
        figures=figures,
        command=command(result, kind),
        inside=in_docker(command(result, kind), kind.file),
        about={each["name"]: each for each in parameters.describe(kind.settings)},
        files=list(files),
    )


def repeats_page(repeats: Repeats, kind: Kind, runs: Sequence[tuple[str, float]]) -> str:
    """Return the page about repeats of one experiment as HTML.

    Args:
        repeats: evaluation of all runs.
        kind: class of the experiment.
        runs: for each run, the path of its report relative to this page ("" if it was not written), and its duration in
            seconds.
    """
    first = repeats.results[0]
    bounds = {each.name: (each.low, each.high) for each in repeats.checks if each.value is not None}
    return _render(
        "repeats.html",
        title=f"{first.name}, {repeats.wanted} times: {repeats.verdict}",
        repeats=repeats,
        runs=[(result, *run) for result, run in zip(repeats.results, runs, strict=True)],
        rows=[_spread(row, repeats, bounds.get(row.name, (None, None))) for row in repeats.rows],
        injections=repeats.injections,
        command=command(first, kind),
    )


def index_page(runs: Sequence[StoredRun], pages: Sequence[str]) -> str:
    """Return the index page as HTML, with all *runs* (given newest first) and links to the multi-run *pages*."""
    by_name: dict[str, list[StoredRun]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    return _render("index.html", title="firstbyte: all runs", experiments=sorted(by_name.items()), pages=pages)


def summary_page(title: str, runs: Sequence[StoredRun]) -> str:
    """Return a summary page about several runs as HTML, for a reviewer who has to sign off on them."""
    return _render("summary.html", title=title, runs=runs)


def comparison_page(a: StoredRun, b: StoredRun) -> str:
    """Return a page that compares two runs as HTML, with the most important chart of each."""
    title = f"{a.name} {a.time} and {b.name} {b.time}"
    changed = changed_parameters(a, b)
    return _render("comparison.html", title=title, runs=(a, b), rows=compare(a, b), changed=changed)


def command(result: Result, kind: Kind) -> str:
    """Return the command line that repeats a run."""
    usual = parameters.as_json(parameters.bind(kind.settings, quick=result.quick))
    verb = "drill" if kind.__module__.startswith("drills") else "run"
    words = ["firstbyte", verb, kind.file or result.name]
    words += [f"--{flag}" for flag, on in (("quick", result.quick), ("control", result.control)) if on]
    words += ["--seed", str(result.seed)]
    for name, value in result.parameters.items():
        if value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            words += ["--set", f"{name}={text}"]
    return " ".join(words)


def in_docker(said: str, file: str) -> str:
    """Return the ``docker compose`` command line that is equivalent to *said*, for a machine that has only Docker.

    If *file* (the path of a user's own experiment) is not "", the command reads that file from standard input.
    """
    inside = said.replace("firstbyte ", f"docker compose run --rm {'-T ' if file else ''}lab ", 1)
    return f"{inside.replace(file, '-', 1)} < {file}" if file else inside


def sentence(result: Result) -> str:
    """Return one sentence with the most important number of a run; "" if the run measured nothing that was predicted.

    The number comes from the first row that has a check of the same name, or else from the first row with a prediction.
    """
    checked = {check.name for check in result.checks}
    rows = [row for row in result.rows if row.predicted is not None and not math.isnan(row.measured.value)]
    row = next((row for row in rows if row.name in checked), rows[0] if rows else None)
    if row is None or row.predicted is None:
        return ""
    unit = f" {row.unit}" if row.unit else ""
    off = f" ({(row.measured.value - row.predicted) / row.predicted:+.1%})" if row.predicted else ""
    measured = f"and this run measured {number(row.measured.value)}{unit}{off}"
    return f"{row.name[:1].upper()}{row.name[1:]}: theory predicts {number(row.predicted)}{unit}, {measured}."


def _spread(row: Spread, repeats: Repeats, bounds: tuple[float | None, float | None]) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "predicted": row.predicted,
        "median": row.median,
        "smallest": min(row.values, default=None),
        "largest": max(row.values, default=None),
        "exact": all(residual == 0 for residual in row.residuals),
        "strip": Markup(strip(row, repeats.verdicts, bounds)),  # noqa: S704 - our own SVG; `strip` escapes all text
    }


def _render(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    loader = PackageLoader("reports")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"number": number, "percent": lambda share: f"{share:+.1%}", "plain": _plain}
    made.globals |= {"headline": headline, "tone": tone, "chart_style": Markup(style())}  # noqa: S704 - our style sheet
    return made


def _plain(value: Any) -> str:
    """Format a parameter or a fact as text."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)) and all(isinstance(each, (str, int, float)) for each in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
