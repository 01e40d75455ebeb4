"""Terminal output for experiments: the list, a single run, a series of runs, and a summary of several experiments."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import Experiment, Outcome, Repeats, Verdict, parameters
from experiments.estimate import number as figure
from experiments.result import Result, headline, tone
from firstbyte import terminal
from hostfiles.layout import RESULTS

COLOURS = {"pass": "green", "fail": "red", "invalid": "yellow", "skipped": "yellow"}
#: Environment variable with the console's port on this machine (docker-compose.yml), and the default port.
CONSOLE_PORT, USUAL_PORT = "FIRSTBYTE_CONSOLE_PORT", "8080"


@dataclass(frozen=True, slots=True)
class Done:
    """A completed run of an experiment."""

    outcome: Outcome
    #: Results folder of the run; None if it could not be written.
    folder: Path | None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict of the run."""
        return self.outcome.result.verdict


def described(kind: type[Experiment[Any]]) -> dict[str, Any]:
    """Return the entry for one experiment in the output of ``--list --json``."""
    return {
        "name": kind.name,
        "claim": kind.claim,
        "control": kind.control.without,
        "parameters": parameters.describe(kind.settings),
        "lessons": [asdict(each) for each in kind.lessons],
    }


def listing(kinds: Sequence[type[Experiment[Any]]]) -> str:
    """Return the output of ``--list``."""
    lines = []
    for kind in kinds:
        lines.append(f"{kind.name}\n  {kind.claim}\n  control: {kind.control.without}")
        for each in parameters.describe(kind.settings):
            quick = f" (quick {_plain(each['quick'])})" if "quick" in each else ""
            words = (f"--set {each['name']}={_plain(each['full'])}{quick}", each.get("unit"), each["help"])
            lines.append(f"    {'  '.join(word for word in words if word)}")
    return "\n".join(lines)


def show(done: Done) -> None:
    """Print one run: rows, checks, and the location of its report."""
    outcome, result = done.outcome, done.outcome.result
    console = terminal.console()
    console.print(_title(result.name, result.verdict, result))
    if result.rows:
        table = terminal.table("", *(numbers := ("theory", "measured", "residual")), " ", numbers=numbers)
        for row in result.rows:
            table.add_row(escape(row.name), *map(figure, (row.predicted, row.measured.value, row.residual)), row.unit)
        console.print(table)
    table = terminal.table("check", "expected", "got")
    for each in (*result.checks, *(v for v in result.validity if not v.ok)):
        table.add_row(escape(each.name), escape(each.expected), _judged(each.got, ok=each.ok))
    if table.rows:
        console.print(table)
    if result.skipped or result.interrupted:
        console.print(escape(result.skipped or result.interrupted), style="yellow")
    for text in result.left_out:
        console.print(f"left out: {escape(text)}", style="dim")
    if done.folder is not None:
        console.print(f"{outcome.took:.0f} s; report: {url(done.folder / 'report.html')}", style="dim", soft_wrap=True)


def show_briefly(done: Done, number: int, times: int) -> None:
    """Print one run of a series: its verdict and the failed checks."""
    result = done.outcome.result
    console = terminal.console()
    report = f"  [dim]{url(done.folder / 'report.html')}[/]" if done.folder else ""
    said = f"{result.name}, run {number} of {times}: {_words(done.verdict, result.control)}"
    console.print(f"{said}  {done.outcome.took:.0f} s{report}", soft_wrap=True)
    for reason in result.reasons:
        console.print(f"  {escape(reason)}", style="dim")


def show_repeats(repeats: Repeats, page: Path | None) -> None:
    """Print the combined result of a series of runs."""
    console = terminal.console()
    first = repeats.results[0]
    console.print(_title(f"{first.name}, {repeats.wanted} times, by the medians", repeats.verdict, first))
    if repeats.rows:
        table = terminal.table("", *(numbers := ("theory", "median", "smallest", "largest")), " ", numbers=numbers)
        for row in repeats.rows:
            ends = (min(row.values, default=None), max(row.values, default=None))
            table.add_row(escape(row.name), *map(figure, (row.predicted, row.median, *ends)), row.unit)
        console.print(table)
    table = terminal.table("check", "expected", "median", "run by run")
    for each in repeats.checks:
        got = f"{'' if each.ok else 'not '}in every run" if each.value is None else figure(each.value)
        held = "".join("·" if ok is None else "✓" if ok else "[red]✗[/]" for ok in each.held)
        table.add_row(escape(each.name), escape(each.expected), _judged(got, ok=each.ok), held)
    if table.rows:
        console.print(table)
    same = [f"verdicts: {', '.join(repeats.verdicts)}"] if repeats.agree else []
    if repeats.valid and not repeats.difference:
        same.append(f"the same {len(repeats.injections)} injections in {len(repeats.valid)} valid runs")
    if same:
        console.print("; ".join(same))
    for reason in repeats.reasons:
        console.print(escape(reason), style="red")
    if page is not None:
        console.print(f"all {len(repeats.results)} runs on one page: {url(page)}", style="dim", soft_wrap=True)


def show_all(done: Sequence[Done], page: Path | None) -> None:
    """Print the verdicts of several runs."""
    table = terminal.table("experiment", "verdict", "seconds", numbers=("seconds",))
    for each in done:
        result = each.outcome.result
        table.add_row(result.name, _words(each.verdict, result.control), f"{each.outcome.took:.0f}")
    console = terminal.console()
    console.print(table)
    console.print(f"all reports: {url(page or RESULTS / 'index.html')}", style="dim", soft_wrap=True)


def url(path: Path) -> str:
    """Return the console URL of a file in the results folder, because the folder itself is inside the lab."""
    if not path.is_relative_to(RESULTS):
        return str(path)
    port = os.environ.get(CONSOLE_PORT) or USUAL_PORT
    return f"http://127.0.0.1:{port}/results/{path.relative_to(RESULTS)}"


def _title(name: str, verdict: Verdict, result: Result) -> str:
    """Return the title line for a run: its verdict, its claim and, for a control, what the control removes."""
    control = f" (control: {escape(result.control)})" if result.control else ""
    return f"[bold]{name}: {_words(verdict, result.control)}[/]{control}  {escape(result.claim)}"


def _words(verdict: Verdict, control: str) -> str:
    """Return the verdict as coloured text; for a control, a failure is shown as the good outcome."""
    return f"[{COLOURS[tone(verdict, control=bool(control))]}]{headline(verdict, control=bool(control))}[/]"


def _judged(text: str, *, ok: bool) -> str:
    return escape(text) if ok else f"[red]{escape(text)}[/]"


def _plain(value: Any) -> str:
    """Return a parameter value in the syntax that ``--set`` accepts."""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)
