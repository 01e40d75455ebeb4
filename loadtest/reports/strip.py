"""Draws the residuals of one result row over several runs as a small SVG chart."""

from collections.abc import Sequence
from html import escape

from experiments.estimate import number
from experiments.repeats import Spread

#: Width of a strip, margin around its dots, and vertical distance between the dots of two runs, in pixels.
WIDTH, MARGIN, STEP = 260, 9, 8


def strip(row: Spread, verdicts: Sequence[str], bounds: tuple[float | None, float | None] = (None, None)) -> str:
    """Return an SVG strip with one dot per run, the first run at the top.

    The prediction, or the median if there is none, is in the middle.

    Args:
        row: result row with the measurement of each run.
        verdicts: verdict of each run; failed runs are drawn as a ring, invalid ones as a thin ring.
        bounds: smallest and largest value that passes, drawn as a band; None: no bound.

    Returns:
        SVG markup; "" if no run has a value.
    """
    centre = row.predicted if row.predicted is not None else row.median
    if centre is None:
        return ""
    residuals = [None if r is None or not r.measured.n else r.measured.value - centre for r in row.rows]
    edges = [None if end is None else end - centre for end in bounds]
    reach = max((abs(x) for x in (*residuals, *edges) if x is not None), default=0.0)
    height = 2 * MARGIN + STEP * (len(residuals) - 1)

    def x(value: float) -> float:
        return WIDTH / 2 + (WIDTH / 2 - MARGIN) * (value / reach if reach else 0.0)

    parts = []
    if edges != [None, None]:
        left, right = (end if edge is None else x(edge) for edge, end in zip(edges, (0, WIDTH), strict=True))
        parts.append(f"<rect class='band' x='{left:.1f}' y='0' width='{right - left:.1f}' height='{height}'/>")
    other = "" if row.predicted is not None else " other"
    parts.append(f"<line class='theory{other}' x1='{WIDTH / 2}' x2='{WIDTH / 2}' y1='0' y2='{height}'/>")
    for i, (residual, verdict) in enumerate(zip(residuals, verdicts, strict=True)):
        if residual is None:
            continue
        look = {"pass": "f-0", "fail": "ring"}.get(verdict, "idle")
        tip = f"<title>run {i + 1}: {number(residual)} {escape(row.unit)}</title>"
        parts.append(f"<circle class='{look}' cx='{x(residual):.1f}' cy='{MARGIN + STEP * i}' r='3.6'>{tip}</circle>")
    if reach:
        y = height + 9
        parts.append(f"<text class='edge' x='{x(-reach):.1f}' y='{y}'>−{number(reach)}</text>")
        parts.append(f"<text class='edge' x='{x(reach):.1f}' y='{y}' text-anchor='end'>+{number(reach)}</text>")
        height += 12
    label = escape(f"residuals of {row.name}")
    box = f"viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{label}'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' class='chart strip' {box}>{''.join(parts)}</svg>"
