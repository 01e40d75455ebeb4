"""Draws pictures as SVG, without any library, inline in a report or as a file of its own, and as PNG where a program for it is at hand."""

import math
from collections.abc import Callable, Sequence
from html import escape

from experiments.chart import Bars, Chart, Colour, Curve, Dots, Moment, Panel
from experiments.estimate import number
from reports.axis import Axis
from reports.labels import LETTER, SMALL, cut, wide, wrap
from reports.palette import DASHES, HATCH, SHAPES, style

WIDTH, LEFT, RIGHT = 960, 66, 24
#: Of a picture for a phone: there its letters are twice as large.
NARROW = 480

#: Maps a value to pixels from the top.
Vertical = Callable[[float], float]


def svg(chart: Chart, *, standalone: bool = False, width: int = WIDTH) -> str:
    """Return the picture.

    Args:
        chart: what to draw.
        standalone: with its own style, title and paper, as a file.
        width: pixels: `WIDTH`, or `NARROW` for a phone.
    """
    drawn = _Drawing(chart, title=standalone, width=width)
    kind = "chart narrow" if width == NARROW else "chart"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' class='{kind}' viewBox='0 0 {width} {drawn.height:.0f}' role='img' aria-label='{escape(chart.title)}'"
    if not standalone:
        return f"{head}>{drawn.body}</svg>"
    return (
        f"{head} width='{width}' height='{drawn.height:.0f}'><style>{style()}</style>"
        f"<rect class='paper' width='{width}' height='{drawn.height:.0f}'/>{drawn.body}</svg>"
    )


class _Drawing:
    """Draws one chart; `body` and `height` are the result."""

    def __init__(self, chart: Chart, *, title: bool, width: int) -> None:
        self.chart, self.width, self.right = chart, width, width - RIGHT
        # Grid and marks, then lines through all panels, then lanes and words, which nothing may cross.
        self._parts: list[str] = []
        self._lines: list[str] = []
        self._words: list[str] = []
        # Left, right and base of words that no moment's line may cross.
        self._said: list[tuple[float, float, float]] = []
        lanes = max((wide(lane.label) for p in chart.panels for lane in p.lanes), default=0.0)
        self.left = max(LEFT, min(220, width * 0.36, 14 + lanes))
        self.axis = Axis.across(chart)
        y = 6.0
        if title:
            self._over(f"<text class='title' x='8' y='{y + 16:.0f}'>{escape(chart.title)}</text>")
            y += 30
        rows = self._moment_rows()
        y += 15 * len(rows)
        top = y
        for i, panel in enumerate(chart.panels):
            y += 14 if i else 0
            y = self._lanes(panel, y) if panel.lanes else self._panel(panel, y)
        self._moments(rows, top, y)
        y = self._x_axis(y)
        if title and chart.caption:
            for line in wrap(chart.caption, int((width - 16) / LETTER)):
                self._over(f"<text x='8' y='{y + 14:.0f}'>{escape(line)}</text>")
                y += 16
        self.height = y + 8
        struck = any(isinstance(mark, Bars) and mark.struck for panel in chart.panels for mark in panel.marks)
        self.body = "".join((HATCH.format(width) if struck else "", *self._parts, *self._lines, *self._words))

    def _put(self, text: str) -> None:
        self._parts.append(text)

    def _over(self, text: str) -> None:
        self._words.append(text)

    def _say(self, words: str, x: float, y: float, how: str = "", *, before: float = 0.0) -> None:
        """Write words that the lines of moments go around, and what stands *before* them, too."""
        self._said.append((x - before - 3, x + wide(words) + 3, y))
        self._over(f"<text {how} x='{x:.1f}' y='{y:.1f}'>{escape(words)}</text>")

    def _level(self, kind: str, y: float) -> None:
        self._put(f"<line class='{kind}' x1='{self.left:.0f}' x2='{self.right}' y1='{y:.1f}' y2='{y:.1f}'/>")

    def _box(self, colour: Colour, attributes: str, *, struck: bool) -> str:
        box = f"<rect class='f-{colour}' {attributes}/>"
        return f"{box}<rect fill='url(#hatch-{self.width})' {attributes}/>" if struck else box

    def _dot(self, colour: Colour, x: float, y: float) -> str:
        shape = SHAPES.get(colour) if isinstance(colour, int) else None
        if shape is None:
            return f"<circle class='f-{colour} halo' cx='{x:.1f}' cy='{y:.1f}' r='4.5'/>"
        return f"<path class='f-{colour} halo' d='{shape}' transform='translate({x:.1f} {y:.1f})'/>"

    # --- x ----------------------------------------------------------------------------------------------------------

    def x(self, value: float) -> float:
        """Return pixels from the left."""
        return self.left + self.axis.place(value, self.right - self.left)

    def _x_axis(self, y: float) -> float:
        chart = self.chart
        if chart.categories:
            y = self._names(chart.categories, y)
        else:
            taken = -math.inf
            ticks = self.axis.ticks(max(4, self.width // 96))
            for value in (v for v in ticks if not chart.whole or v == round(v)):
                words, x = number(value), self.x(value)
                if x - wide(words) / 2 > taken:
                    self._over(f"<text x='{x:.1f}' y='{y + 14:.1f}' text-anchor='middle'>{words}</text>")
                    taken = x + wide(words) / 2 + 6
        for line in wrap(chart.x, int((self.width - 16) / LETTER)):
            self._over(f"<text x='{self.right:.0f}' y='{y + 32:.1f}' text-anchor='end'>{escape(line)}</text>")
            y += 16
        return y + 20

    def _names(self, names: Sequence[str], y: float) -> float:
        """Write names side by side in lines; aslant where a word has no room."""
        room = int((self.right - self.left) / len(names) / LETTER)
        if max(len(word) for name in names for word in name.split()) > max(6, room):
            for i, name in enumerate(names):
                at = f"{self.x(i) + 4:.1f} {y + 12:.1f}"
                self._over(f"<text transform='translate({at}) rotate(-50)' text-anchor='end'>{escape(name)}</text>")
            return y + max(map(wide, names)) * math.sin(math.radians(50))
        lines = [wrap(name, max(6, room)) for name in names]
        for i, words in enumerate(lines):
            for j, line in enumerate(words):
                self._over(f"<text x='{self.x(i):.1f}' y='{y + 14 + 13 * j:.1f}' text-anchor='middle'>{escape(line)}</text>")  # fmt: skip
        return y + 13 * (max(map(len, lines), default=1) - 1)

    # --- panels -----------------------------------------------------------------------------------------------------

    def _panel(self, panel: Panel, top: float) -> float:
        top = self._legend(panel, top)
        bottom = top + panel.height
        axis = Axis.upwards(panel)

        def y(value: float) -> float:
            return bottom - panel.height * min(1.03, max(-0.03, axis.place(value)))

        for value in axis.ticks(max(4, panel.height // 40)):
            self._level("grid", y(value))
            self._over(f"<text x='{self.left - 7:.0f}' y='{y(value) + 4:.1f}' text-anchor='end'>{number(value)}</text>")
        self._level("axis", bottom)
        stack: dict[tuple[float, float], float] = {}
        for mark in panel.marks:
            match mark:
                case Bars():
                    self._bars(mark, stack, y)
                case Curve():
                    self._curve(mark, y)
                case Dots():
                    self._dots(mark, y)
        return bottom + 8

    def _legend(self, panel: Panel, top: float) -> float:
        at, y = self.left, top + 12
        if panel.y:
            self._say(panel.y, 8, y, "class='ink'")
            at = max(at, 8 + wide(panel.y) + 24)
        entries: dict[tuple[str, Colour], set[str]] = {}
        for mark in panel.marks:
            if mark.label:
                entries.setdefault((mark.label, mark.colour), set()).add(_sign(mark))
        first = at
        for (label, colour), signs in entries.items():
            lines = wrap(label, int((self.right - 34) / LETTER))
            width = 26 + max(map(wide, lines)) + 16
            if at + width - 16 > self.right:
                first = first if at > first and first + width - 16 <= self.right else 8
                at, y = first, y + 17
            self._signs(signs, colour, at, y)
            self._say(lines[0], at + 23, y, before=26)
            for line in lines[1:]:
                y += 15
                self._say(line, at + 23, y)
            at += width
        return y + 12

    def _signs(self, signs: set[str], colour: Colour, at: float, y: float) -> None:
        """Draw what stands before a label: all that marks of this label and colour look like."""
        box = f"x='{at:.1f}' y='{y - 10:.1f}' width='14' height='11' rx='2'"
        if "bars" in signs:
            self._over(self._box(colour, box, struck=False))
        if "hatch" in signs:
            self._over(self._box(colour, box, struck=True))
        if signs & {"line", "dash"}:
            dash = " stroke-dasharray='5 4'" if "dash" in signs else ""
            self._over(
                f"<line class='l-{colour}' stroke-width='2'{dash} x1='{at:.1f}' x2='{at + 18:.1f}' y1='{y - 4:.1f}' y2='{y - 4:.1f}'/>"
            )
        if "dots" in signs:
            self._over(self._dot(colour, at + 9, y - 4))

    def _bars(self, mark: Bars, stack: dict[tuple[float, float], float], y: Vertical) -> None:
        for begin, end, height in mark.bars:
            below = stack.get((begin, end), 0.0)
            stack[begin, end] = below + height
            if height <= 0:
                continue
            left, right = self.x(begin), self.x(end)
            gap = 0.8 if right - left > 4 else 0.0
            tall = max(2.0, y(below) - y(below + height))
            box = f"opacity='.85' x='{left:.1f}' y='{y(below) - tall:.1f}' width='{max(0.8, right - left - gap):.1f}' height='{tall:.1f}'"
            self._put(self._box(mark.colour, box, struck=mark.struck))

    def _curve(self, mark: Curve, y: Vertical) -> None:
        words: list[str] = []
        before: float | None = None
        for at, value in mark.points:
            if math.isnan(value):  # nothing was measured here: lift the pen
                before = None
                continue
            if mark.steps and before is not None:
                words.append(f"L{self.x(at):.1f} {before:.1f}")
            words.append(f"{'M' if before is None else 'L'}{self.x(at):.1f} {y(value):.1f}")
            before = y(value)
        if words:
            dash = " stroke-dasharray='6 4'" if mark.dashed else ""
            self._put(
                f"<path class='l-{mark.colour}' stroke-width='{2.2 if mark.measured else 1.6}' stroke-linejoin='round'{dash} d='{''.join(words)}'/>"
            )

    def _dots(self, mark: Dots, y: Vertical) -> None:
        for at, value, low, high in mark.points:
            if math.isnan(value):
                continue
            x = self.x(at)
            if y(low) - y(high) > 3:
                self._put(
                    f"<path class='l-{mark.colour}' stroke-width='1.6' d='M{x - 4:.1f} {y(low):.1f}h8M{x - 4:.1f} {y(high):.1f}h8M{x:.1f} {y(low):.1f}V{y(high):.1f}'/>"
                )
            self._put(self._dot(mark.colour, x, y(value)))

    def _lanes(self, panel: Panel, top: float) -> float:
        tall = 22
        y = top + 8
        if panel.y:
            self._say(panel.y, 8, y + 6, "class='ink'")
            y += 16
        for lane in panel.lanes:
            self._level("grid", y + tall / 2)
            self._over(f"<text class='ink' x='8' y='{y + 15:.1f}'>{escape(lane.label)}</text>")
            for span in lane.spans:
                left, right = self.x(span.begin), self.x(span.end)
                width = max(2.0, right - left - 1)
                self._over(
                    f"<rect class='f-{span.colour}' x='{left:.1f}' y='{y + 2:.1f}' width='{width:.1f}' height='{tall - 5}' rx='3'><title>{escape(span.text)}</title></rect>"
                )
                if words := cut(span.text, int((width - 6) / SMALL)):
                    self._over(
                        f"<text class='o-{span.colour}' x='{left + 4:.1f}' y='{y + 14:.1f}'>{escape(words)}</text>"
                    )
            y += tall
        return y + 8

    # --- moments ----------------------------------------------------------------------------------------------------

    def _moment_rows(self) -> list[list[Moment]]:
        """Put each moment's text into the first row where it has room; without any, it is a line alone."""
        rows: list[list[Moment]] = []
        ends: list[float] = []
        for moment in sorted(self.chart.moments, key=lambda m: m.at):
            begin, end = self._extent(moment)
            row = next((i for i, taken in enumerate(ends) if taken < begin), len(ends))
            if row == len(ends):
                if row == 4:
                    rows[0].append(Moment(moment.at, "", moment.colour))
                    continue
                rows.append([])
                ends.append(0.0)
            rows[row].append(moment)
            ends[row] = end + 8
        return rows

    def _extent(self, moment: Moment) -> tuple[float, float]:
        """Return where a moment's text begins and ends: right of its line, or left of it where the picture ends."""
        x, room = self.x(moment.at), wide(moment.text) + 4
        return (x - room, x) if x + room > self.width and x > room else (x, x + room)

    def _moments(self, rows: list[list[Moment]], top: float, bottom: float) -> None:
        written = [(top - 15 * (len(rows) - i) + 10, row) for i, row in enumerate(rows)]
        for y, row in written:
            self._said.extend((*self._extent(moment), y) for moment in row if moment.text)
        for y, row in written:
            for moment in row:
                x = self.x(moment.at)
                dash = DASHES.get(str(moment.colour), "1 4")
                for begin, end in self._free(x, y - 8, bottom):
                    self._lines.append(
                        f"<line class='l-{moment.colour}' stroke-width='1.3' stroke-dasharray='{dash}' x1='{x:.1f}' x2='{x:.1f}' y1='{begin:.1f}' y2='{end:.1f}'/>"
                    )
                left = self._extent(moment)[0] < x
                anchor = " text-anchor='end'" if left else ""
                self._over(
                    f"<text class='m-{moment.colour}' x='{x + (-4 if left else 4):.1f}' y='{y:.1f}'{anchor}>{escape(moment.text)}</text>"
                )

    def _free(self, x: float, top: float, bottom: float) -> list[tuple[float, float]]:
        """Return the stretches of a vertical line that cross no words."""
        stretches = []
        for base in sorted(y for left, right, y in self._said if left < x < right and top < y - 10 and y < bottom):
            stretches.append((top, base - 11))
            top = base + 4
        return [(begin, end) for begin, end in (*stretches, (top, bottom)) if end > begin]


def _sign(mark: Curve | Dots | Bars) -> str:
    """Return what stands for a mark in its legend."""
    match mark:
        case Bars():
            return "hatch" if mark.struck else "bars"
        case Curve():
            return "dash" if mark.dashed else "line"
        case Dots():
            return "dots"
