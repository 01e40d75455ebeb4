"""What a terminal shows of experiments: what there is to run, one run, repeats of one, and how several ended."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import Experiment, Outcome, Repeats, Verdict, parameters
from experiments.estimate import number as figure
from experiments.result import headline, tone
from firstbyte import terminal

COLOURS = {"pass": "green", "fail": "red", "invalid": "yellow", "skipped": "yellow"}
#: The variable with the console's port on this machine (docker-compose.yml), and its default.
CONSOLE_PORT, USUAL_PORT = "FIRSTBYTE_CONSOLE_PORT", "8080"


@dataclass(frozen=True, slots=True)
class Done:
    """One run of several."""

    outcome: Outcome
    #: Where it was kept; None: it could not be.
    folder: Path | None

    @property
    def verdict(self) -> Verdict:
        """Return how it ended."""
        return self.outcome.result.verdict


def described(kind: type[Experiment[Any]]) -> dict[str, Any]:
    """Return what ``--list --json`` says of one experiment."""
    return {
        "name": kind.name,
        "claim": kind.claim,
        "control": kind.control.without,
        "parameters": parameters.describe(kind.settings),
    }


def listing(kinds: Sequence[type[Experiment[Any]]]) -> str:
    """Return what ``--list`` says."""
    lines = []
    for kind in kinds:
        lines.append(f"{kind.name}\n  {kind.claim}\n  control: {kind.control.without}")
        for each in parameters.describe(kind.settings):
            value = each["full"] if "quick" not in each else f"{_plain(each['full'])} (quick {_plain(each['quick'])})"
            lines.append(f"    --set {each['name']}={_plain(value)}  {each.get('unit', '')}  {each['help']}".rstrip())
    return "\n".join(lines)


def show(done: Done) -> None:
    """Show one run: rows, checks, and where its report is."""
    outcome, result = done.outcome, done.outcome.result
    console = terminal.console()
    suffix = f" (control: {result.control})" if result.control else ""
    console.print(
        f"[bold]{result.name}: {_words(result.verdict, result.control)}[/]{escape(suffix)}  {escape(result.claim)}"
    )
    if result.rows:
        table = terminal.table("", *(numbers := ("theory", "measured", "residual")), " ", numbers=numbers)
        for row in result.rows:
            table.add_row(row.name, figure(row.predicted), figure(row.measured.value), figure(row.residual), row.unit)  # fmt: skip
        console.print(table)
    table = terminal.table("check", "expected", "got")
    for each in (*result.checks, *(v for v in result.validity if not v.ok)):
        got = escape(each.got)
        table.add_row(escape(each.name), escape(each.expected), got if each.ok else f"[red]{got}[/]")
    if table.rows:
        console.print(table)
    if result.skipped or result.interrupted:
        console.print(escape(result.skipped or result.interrupted), style="yellow")
    for text in result.left_out:
        console.print(f"left out: {escape(text)}", style="dim")
    if done.folder is not None:
        console.print(f"{outcome.took:.0f} s; report: {url(done.folder / 'report.html')}", style="dim", soft_wrap=True)


def show_briefly(done: Done, number: int, times: int) -> None:
    """Show one run of a series: its verdict and what did not hold."""
    result = done.outcome.result
    console = terminal.console()
    console.print(f"{result.name}, run {number} of {times}: {_words(done.verdict, result.control)}  {done.outcome.took:.0f} s  [dim]{url(done.folder / 'report.html') if done.folder else ''}[/]", soft_wrap=True)  # fmt: skip
    for reason in result.reasons:
        console.print(f"  {escape(reason)}", style="dim")


def show_repeats(repeats: Repeats, page: Path | None) -> None:
    """Show what the runs of a series say together."""
    console = terminal.console()
    first = repeats.results[0]
    suffix = f" (control: {first.control})" if first.control else ""
    console.print(f"[bold]{first.name}, {repeats.wanted} times: {_words(repeats.verdict, first.control)}[/] by the medians{escape(suffix)}  {escape(first.claim)}")  # fmt: skip
    if repeats.rows:
        table = terminal.table("", *(numbers := ("theory", "median", "smallest", "largest")), " ", numbers=numbers)
        for row in repeats.rows:
            ends = (min(row.values, default=None), max(row.values, default=None))
            table.add_row(escape(row.name), *map(figure, (row.predicted, row.median, *ends)), row.unit)
        console.print(table)
    table = terminal.table("check", "expected", "median", "run by run")
    for each in repeats.checks:
        word = "in every run" if each.ok else "not in every run"
        got = word if each.value is None else figure(each.value)
        held = "".join("·" if ok is None else "✓" if ok else "[red]✗[/]" for ok in each.held)
        table.add_row(escape(each.name), escape(each.expected), got if each.ok else f"[red]{got}[/]", held)
    if table.rows:
        console.print(table)
    same = f"verdicts: {', '.join(repeats.verdicts)}" if repeats.agree else ""
    if repeats.valid and not repeats.difference:
        same += (
            f"{'; ' if same else ''}the same {len(repeats.injections)} injections in {len(repeats.valid)} valid runs"
        )
    if same:
        console.print(same)
    for reason in repeats.reasons:
        console.print(escape(reason), style="red")
    if page is not None:
        console.print(f"all {len(repeats.results)} runs on one page: {url(page)}", style="dim", soft_wrap=True)


def show_all(done: Sequence[Done], page: Path | None) -> None:
    """Show how each of several runs ended."""
    table = terminal.table("experiment", "verdict", "seconds", "report")
    for each in done:
        result = each.outcome.result
        report = url(each.folder / "report.html") if each.folder else ""
        table.add_row(result.name, _words(each.verdict, result.control), f"{each.outcome.took:.0f}", report)
    console = terminal.console()
    console.print(table)
    if page is not None:
        console.print(f"all of them on one page: {url(page)}", style="dim", soft_wrap=True)


def url(path: Path) -> str:
    """Return the console's address of a file in the results folder, which only the lab itself can open by its path."""
    _, inside, rest = str(path).partition("/results/")
    port = os.environ.get(CONSOLE_PORT) or USUAL_PORT
    return f"http://127.0.0.1:{port}/results/{rest}" if inside else str(path)


def _words(verdict: Verdict, control: str) -> str:
    """Return a verdict as people read it, in colour: a control has to fail."""
    return f"[{COLOURS[tone(verdict, control=bool(control))]}]{headline(verdict, control=bool(control))}[/]"


def _plain(value: Any) -> str:
    return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)  # fmt: skip
