"""The page about repeats: a strip per row with every run's residual, what the medians say, and what was injected when."""

import html
from collections.abc import Sequence

from experiments.experiment import Experiment
from experiments.repeats import Judged, Moment, Repeats, Spread
from experiments.report import FOOTER, WORDS, command, figure, page

#: Pixels of a strip, of the room above its first and below its last dot, and between the dots of two runs.
WIDE, ROOM, STEP = 260, 9, 8
STYLE = (
    "<style>.strip { width: 16rem; display: block; margin: -.1rem 0 } .strip .band { fill: var(--good); opacity: .16 }"
    ".strip .theory { stroke: var(--ink); stroke-width: 1.4 } .strip .other { stroke-dasharray: 3 3 }"
    ".strip .ring { fill: var(--paper); stroke: var(--bad); stroke-width: 2 } .strip .idle { fill: var(--paper); stroke: var(--idle); stroke-width: 1.5 }"
    ".strip .edge { font-size: 10px } td .soft { white-space: nowrap }"
    "@media screen and (max-width: 40rem) { svg.strip { display: block } .rows td:nth-child(7) { grid-column: 1 / -1 } .rows th:nth-child(7) { display: none } }</style>"
)


def render(repeats: Repeats, kind: type[Experiment[object]], runs: Sequence[tuple[str, float]]) -> str:
    """Return the page.

    Args:
        repeats: what the runs say together.
        kind: the experiment.
        runs: of each, the path of its report from this page (empty: it was not kept) and the seconds that it took.
    """
    first = repeats.results[0]
    control = " <span class='soft'>(control)</span>" if first.control else ""
    same = "same verdict, same injections" if repeats.agree and not repeats.difference else "not the same each time"
    parts = [
        STYLE,
        f"<h1>{_e(first.name)}, {repeats.wanted} times{control}<span class='verdict {repeats.verdict}'>medians: {WORDS[repeats.verdict]}</span></h1>",
        f"<p class='claim'>{_e(first.claim)}</p>",
        f"<p class='soft'>seed {first.seed} · {'quick' if first.quick else 'full'} runs · {same} · {_e(first.manifest.get('time', ''))}</p>",
        *(f"<div class='note bad'>{_e(reason)}</div>" for reason in repeats.reasons),
        _runs(repeats, runs),
        _rows(repeats),
        _checks(repeats.checks),
        _injections(repeats.injections, len(repeats.valid)),
        f"<h2>How to repeat it</h2><pre>{_e(f'{command(first, kind)} --times {repeats.wanted}')}</pre>",
        FOOTER.replace("../../", ""),
    ]
    return page(f"{first.name}, {repeats.wanted} times: {repeats.verdict}", "".join(parts))


def strip(row: Spread, verdicts: Sequence[str], bounds: tuple[float | None, float | None] = (None, None)) -> str:
    """Return the residuals of one row as SVG: a dot per run, the first on top, theory in the middle.

    Args:
        row: the row.
        verdicts: of each run: one that failed is a ring, one that is not valid a thin ring.
        bounds: what is right, as values of the row: drawn as a band.
    """
    centre = row.predicted if row.predicted is not None else row.median
    if centre is None:
        return ""
    away = [None if r is None or not r.measured.n else r.measured.value - centre for r in row.rows]
    edges = [end - centre for end in bounds if end is not None]
    reach = max((abs(x) for x in (*away, *edges) if x is not None), default=0.0)
    tall = 2 * ROOM + STEP * (len(away) - 1)

    def x(value: float) -> float:
        return WIDE / 2 + (WIDE / 2 - ROOM) * (value / reach if reach else 0.0)

    parts = []
    if edges:
        left, right = (
            x(end - centre) if end is not None else edge for end, edge in zip(bounds, (0, WIDE), strict=True)
        )
        parts.append(f"<rect class='band' x='{left:.1f}' y='0' width='{right - left:.1f}' height='{tall}'/>")
    other = "" if row.predicted is not None else " other"
    parts.append(f"<line class='theory{other}' x1='{WIDE / 2}' x2='{WIDE / 2}' y1='0' y2='{tall}'/>")
    for i, (value, verdict) in enumerate(zip(away, verdicts, strict=True)):
        if value is None:
            continue
        look = {"pass": "f-0", "fail": "ring"}.get(verdict, "idle")
        told = f"run {i + 1}: {figure(value)} {row.unit}"
        parts.append(f"<circle class='{look}' cx='{x(value):.1f}' cy='{ROOM + STEP * i}' r='3.6'><title>{_e(told)}</title></circle>")  # fmt: skip
    if reach:
        y = tall + 9
        parts.append(f"<text class='edge' x='{x(-reach):.1f}' y='{y}'>−{figure(reach)}</text>")
        parts.append(f"<text class='edge' x='{x(reach):.1f}' y='{y}' text-anchor='end'>+{figure(reach)}</text>")
        tall += 12
    return f"<svg xmlns='http://www.w3.org/2000/svg' class='chart strip' viewBox='0 0 {WIDE} {tall}' role='img' aria-label='residuals of {_e(row.name)}'>{''.join(parts)}</svg>"


def _runs(repeats: Repeats, runs: Sequence[tuple[str, float]]) -> str:
    lines = []
    for i, (result, (link, took)) in enumerate(zip(repeats.results, runs, strict=True), 1):
        name = f"<a href='{_e(link)}'>run {i}</a>" if link else f"run {i} (not kept)"
        badge = f"<span class='verdict {result.verdict}'>{result.verdict}</span>"
        lines.append(f"<tr><td>{name}<td>{badge}<td class='n'>{took:.0f} s<td>{_e('; '.join(result.reasons))}")
    return f"<h2>Every run</h2><div class='wide'><table><tr><th><th>verdict<th class='n'>took<th>what did not hold{''.join(lines)}</table></div>"


def _rows(repeats: Repeats) -> str:
    if not repeats.rows:
        return ""
    bounds = {each.name: (each.low, each.high) for each in repeats.checks if each.value is not None}
    lines = []
    for row in repeats.rows:
        ends = (min(row.values, default=None), max(row.values, default=None))
        exact = all(each == 0 for each in row.residuals)
        drawn = (
            "<span class='soft'>exact in every run</span>"
            if exact
            else strip(row, repeats.verdicts, bounds.get(row.name, (None, None)))
        )
        lines.append(
            f"<tr><td>{_e(row.name)}<td class='n'>{figure(row.predicted)}<td class='n'><b>{figure(row.median)}</b>"
            f"<td class='n'>{figure(ends[0])}<td class='n'>{figure(ends[1])}<td>{_e(row.unit)}<td>{drawn}"
        )
    return (
        "<h2>Predicted and measured</h2><p class='soft'>The strip of a row: what theory does not explain. A dot is a run, the first on top; the line is theory "
        "(dashed, where there is none: the median), the band what is right, a ring a run that failed. Each strip has its own scale, written at its ends.</p>"
        "<div class='wide'><table class='rows'><tr><th><th class='n'>theory<th class='n'>median<th class='n'>smallest<th class='n'>largest<th><th>residual of each run"
        f"{''.join(lines)}</table></div>"
    )


def _checks(checks: Sequence[Judged]) -> str:
    if not checks:
        return ""
    lines = []
    for each in checks:
        held = " ".join("·" if ok is None else "✓" if ok else "<span class='no'>✗</span>" for ok in each.held)
        got = "" if each.value is None else f"median {figure(each.value)}"
        lines.append(
            f"<tr><td>{'✓' if each.ok else '<span class=no>✗</span>'}<td>{_e(each.name)}<td>{_e(each.expected)}"
            f"<td class='{'' if each.ok else 'no'}'>{got or ('in every run' if each.ok else 'not in every run')}<td>{held}"
        )
    return (
        "<h2>What the medians say</h2><p class='soft'>A check of one number is judged at its median; any other has to hold in every valid run.</p>"
        f"<div class='wide'><table><tr><th><th>check<th>expected<th>got<th>run by run{''.join(lines)}</table></div>"
    )


def _injections(made: Sequence[Moment], of: int) -> str:
    if not made:
        return ""
    lines = "".join(
        f"<tr><td class='n'>{i}<td>{_e(each.text)}<td class='n'>{min(each.at):.2f} s<td class='n'>{max(each.at):.2f} s"
        for i, each in enumerate(made, 1)
    )
    return (
        f"<h2>What was injected</h2><details {'open' if len(made) <= 16 else ''}><summary>{len(made)} injections, in {of} valid runs</summary>"
        f"<div class='wide'><table><tr><th><th><th class='n'>earliest<th class='n'>latest{lines}</table></div></details>"
    )


def _e(text: object) -> str:
    return html.escape(str(text))
