"""Draws charts as SVG without a library, either for a page or as a standalone file."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from experiments.chart import Bars, Chart, Colour, Curve, Dots, Ladder, Lane, Moment, Panel
from experiments.estimate import number
from reports.axis import Axis
from reports.labels import LETTER, SMALL, cut, element, text, wide, wrap
from reports.ladder import ladder
from reports.palette import DASHES, HATCH, SHAPES, style

#: Width of a chart, minimum left margin and right margin, in pixels.
WIDTH, LEFT, RIGHT = 960, 66, 24
#: Width of the same chart for a phone, in pixels; half of `WIDTH`, so that the text is twice as large after scaling.
NARROW = 480
#: Maximum number of rows for the labels of moments, and height of a row in pixels.
MOMENT_ROWS, ROW = 4, 15
#: Height of a lane in pixels.
LANE = 22

#: A function that converts a y value to pixels from the top of the picture.
Vertical = Callable[[float], float]


def svg(chart: Chart | Ladder, *, standalone: bool = False, width: int = WIDTH) -> str:
    """Return a chart as SVG markup.

    Args:
        chart: chart to draw.
        standalone: include style sheet, title, caption and background, for a file that is shown outside a page.
        width: width in pixels: `WIDTH`, or `NARROW` for a phone; ladder diagrams always have `WIDTH`.
    """
    if isinstance(chart, Ladder):
        return ladder(chart.packets, chart.title, chart.caption, standalone=standalone)
    drawn = _Drawing(chart, title=standalone, width=width)
    height = f"{drawn.height:.0f}"
    body, size = drawn.body, {}
    if standalone:
        size = {"width": width, "height": height}
        body = element("style", style()) + element("rect", "", "paper", **size) + body
    css = "chart narrow" if width == NARROW else "chart"
    about = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria_label": escape(chart.title)}
    return element("svg", body, css, xmlns="http://www.w3.org/2000/svg", **about, **size)


class _Drawing:
    """Draws one chart when it is created; `body` is the SVG markup, and `height` the height in pixels."""

    def __init__(self, chart: Chart, *, title: bool, width: int) -> None:
        self.chart, self.width, self.right = chart, width, width - RIGHT
        # Layers from back to front: grid and marks; vertical lines of moments; lanes and text.
        self._marks: list[str] = []
        self._lines: list[str] = []
        self._words: list[str] = []
        # Left end, right end and baseline, in pixels, of each text that the vertical lines of moments must not cross.
        self._kept_clear: list[tuple[float, float, float]] = []
        lanes = max((wide(lane.label) for p in chart.panels for lane in p.lanes), default=0.0)
        self.left = max(LEFT, min(220, width * 0.36, 14 + lanes))
        self.axis = Axis.across(chart)
        y = 6.0
        if title:
            self._words.append(text(chart.title, 8, y + 16, "title"))
            y += 30
        rows = self._moment_rows()
        top = y = y + ROW * len(rows)
        for i, panel in enumerate(chart.panels):
            y += 14 if i else 0
            y = self._lanes(panel, y) if panel.lanes else self._panel(panel, y)
        self._moments(rows, top, y)
        y = self._x_axis(y)
        if title and chart.caption:
            for line in wrap(chart.caption, int((width - 16) / LETTER)):
                self._words.append(text(line, 8, y + 14))
                y += 16
        self.height = y + 8
        hatched = any(isinstance(mark, Bars) and mark.struck for panel in chart.panels for mark in panel.marks)
        self.body = "".join((HATCH.format(width) if hatched else "", *self._marks, *self._lines, *self._words))

    def _say(self, words: str, x: float, y: float, css: str = "", *, before: float = 0.0) -> None:
        """Draw a text; keep the vertical lines of moments off the text and off the *before* pixels to its left."""
        self._kept_clear.append((x - before - 3, x + wide(words) + 3, y))
        self._words.append(text(words, x, y, css))

    def _level(self, css: str, y: float) -> None:
        self._marks.append(element("line", "", css, x1=float(self.left), x2=self.right, y1=float(y), y2=float(y)))

    def _box(self, colour: Colour, *, struck: bool, **place: Any) -> str:
        box = element("rect", "", f"f-{colour}", **place)
        return box + element("rect", fill=f"url(#hatch-{self.width})", **place) if struck else box

    def _dot(self, colour: Colour, x: float, y: float) -> str:
        shape = SHAPES.get(colour) if isinstance(colour, int) else None
        if shape is None:
            return element("circle", "", f"f-{colour} halo", cx=float(x), cy=float(y), r=4.5)
        return element("path", "", f"f-{colour} halo", d=shape, transform=f"translate({x:.1f} {y:.1f})")

    # --- x ----------------------------------------------------------------------------------------------------------

    def x(self, value: float) -> float:
        """Convert an x value to pixels from the left of the picture."""
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
                    self._words.append(text(words, x, y + 14, text_anchor="middle"))
                    taken = x + wide(words) / 2 + 6
        for line in wrap(chart.x, int((self.width - 16) / LETTER)):
            self._words.append(text(line, self.right, y + 32, text_anchor="end"))
            y += 16
        return y + 20

    def _names(self, names: Sequence[str], y: float) -> float:
        """Draw the category names below the x axis, wrapped, or slanted if a word does not fit; return the new y."""
        room = max(6, int((self.right - self.left) / len(names) / LETTER))
        if max(len(word) for name in names for word in name.split()) > room:
            for i, name in enumerate(names):
                turned = f"translate({self.x(i) + 4:.1f} {y + 12:.1f}) rotate(-50)"
                self._words.append(element("text", escape(name), transform=turned, text_anchor="end"))
            return y + max(map(wide, names)) * math.sin(math.radians(50))
        lines = [wrap(name, room) for name in names]
        for i, words in enumerate(lines):
            for j, line in enumerate(words):
                self._words.append(text(line, self.x(i), y + 14 + 13 * j, text_anchor="middle"))
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
            self._words.append(text(number(value), self.left - 7, y(value) + 4, text_anchor="end"))
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
            self._say(panel.y, 8, y, "ink")
            at = max(at, 8 + wide(panel.y) + 24)
        entries: dict[tuple[str, Colour], set[str]] = {}
        for mark in panel.marks:
            if mark.label:
                entries.setdefault((mark.label, mark.colour), set()).add(_look(mark))
        first = at
        for (label, colour), looks in entries.items():
            lines = wrap(label, int((self.right - 34) / LETTER))
            width = 26 + max(map(wide, lines)) + 16
            if at + width - 16 > self.right:
                first = first if at > first and first + width - 16 <= self.right else 8
                at, y = first, y + 17
            self._samples(looks, colour, at, y)
            self._say(lines[0], at + 23, y, before=26)
            for line in lines[1:]:
                y += 15
                self._say(line, at + 23, y)
            at += width
        return y + 12

    def _samples(self, looks: set[str], colour: Colour, x: float, y: float) -> None:
        """Draw a sample of each mark type in *looks* (see `_look`) to the left of a legend label."""
        for struck in (look == "hatch" for look in ("bars", "hatch") if look in looks):
            place = {"x": float(x), "y": y - 10.0, "width": 14, "height": 11, "rx": 2}
            self._words.append(self._box(colour, struck=struck, **place))
        if looks & {"line", "dash"}:
            dash = "5 4" if "dash" in looks else None
            ends = {"x1": float(x), "x2": x + 18.0, "y1": y - 4.0, "y2": y - 4.0}
            self._words.append(element("line", "", f"l-{colour}", stroke_width=2, stroke_dasharray=dash, **ends))
        if "dots" in looks:
            self._words.append(self._dot(colour, x + 9, y - 4))

    def _bars(self, mark: Bars, stack: dict[tuple[float, float], float], y: Vertical) -> None:
        for begin, end, height in mark.bars:
            below = stack.get((begin, end), 0.0)
            stack[begin, end] = below + height
            if height <= 0:
                continue
            left, right = self.x(begin), self.x(end)
            tall = max(2.0, y(below) - y(below + height))
            wide_ = max(0.8, right - left - (0.8 if right - left > 4 else 0.0))
            place = {"opacity": ".85", "x": left, "y": y(below) - tall, "width": wide_, "height": tall}
            self._marks.append(self._box(mark.colour, struck=mark.struck, **place))

    def _curve(self, mark: Curve, y: Vertical) -> None:
        path: list[str] = []
        before: float | None = None
        for at, value in mark.points:
            if math.isnan(value):  # no measurement: leave a gap in the line
                before = None
                continue
            if mark.steps and before is not None:
                path.append(f"L{self.x(at):.1f} {before:.1f}")
            path.append(f"{'M' if before is None else 'L'}{self.x(at):.1f} {y(value):.1f}")
            before = y(value)
        if path:
            dash, width = "6 4" if mark.dashed else None, 2.2 if mark.measured else 1.6
            stroke = {"stroke_width": width, "stroke_linejoin": "round", "stroke_dasharray": dash}
            self._marks.append(element("path", "", f"l-{mark.colour}", **stroke, d="".join(path)))

    def _dots(self, mark: Dots, y: Vertical) -> None:
        for at, value, low, high in mark.points:
            if math.isnan(value):
                continue
            x = self.x(at)
            if y(low) - y(high) > 3:
                bar = "".join(f"M{x - 4:.1f} {y(end):.1f}h8" for end in (low, high))
                path = f"{bar}M{x:.1f} {y(low):.1f}V{y(high):.1f}"
                self._marks.append(element("path", "", f"l-{mark.colour}", stroke_width=1.6, d=path))
            self._marks.append(self._dot(mark.colour, x, y(value)))

    def _lanes(self, panel: Panel, top: float) -> float:
        y = top + 8
        if panel.y:
            self._say(panel.y, 8, y + 6, "ink")
            y += 16
        for lane in panel.lanes:
            self._lane(lane, y)
            y += LANE
        return y + 8

    def _lane(self, lane: Lane, y: float) -> None:
        self._level("grid", y + LANE / 2)
        self._words.append(text(lane.label, 8, y + 15, "ink"))
        for span in lane.spans:
            left, right = self.x(span.begin), self.x(span.end)
            width = max(2.0, right - left - 1)
            tip = element("title", escape(span.text) or " ")
            place = {"x": left, "y": y + 2.0, "width": width, "height": LANE - 5, "rx": 3}
            self._words.append(element("rect", tip, f"f-{span.colour}", **place))
            if words := cut(span.text, int((width - 6) / SMALL)):
                self._words.append(text(words, left + 4, y + 14, f"o-{span.colour}"))

    # --- moments ----------------------------------------------------------------------------------------------------

    def _moment_rows(self) -> list[list[Moment]]:
        """Assign each moment to the first row with room for its label; a moment that fits in no row loses its label."""
        rows: list[list[Moment]] = []
        ends: list[float] = []
        for moment in sorted(self.chart.moments, key=lambda m: m.at):
            begin, end = self._extent(moment)
            row = next((i for i, taken in enumerate(ends) if taken < begin), len(ends))
            if row == MOMENT_ROWS:
                rows[0].append(Moment(moment.at, "", moment.colour))
                continue
            if row == len(ends):
                rows.append([])
                ends.append(0.0)
            rows[row].append(moment)
            ends[row] = end + 8
        return rows

    def _extent(self, moment: Moment) -> tuple[float, float]:
        """Return the left and right end of a moment's label in pixels.

        The label is to the right of the moment's line, or to the left if it would not fit into the picture.
        """
        x, room = self.x(moment.at), wide(moment.text) + 4
        return (x - room, x) if x + room > self.width and x > room else (x, x + room)

    def _moments(self, rows: list[list[Moment]], top: float, bottom: float) -> None:
        placed = [(top - ROW * (len(rows) - i) + 10, moment) for i, row in enumerate(rows) for moment in row]
        self._kept_clear.extend((*self._extent(moment), y) for y, moment in placed if moment.text)
        for y, moment in placed:
            x, colour = self.x(moment.at), moment.colour
            stroke = {"stroke_width": 1.3, "stroke_dasharray": DASHES.get(str(colour), "1 4")}
            for begin, end in self._clear(x, y - 8, bottom):
                self._lines.append(element("line", "", f"l-{colour}", **stroke, x1=x, x2=x, y1=begin, y2=end))
            if self._extent(moment)[0] < x:
                self._words.append(text(moment.text, x - 4, y, f"m-{colour}", text_anchor="end"))
            else:
                self._words.append(text(moment.text, x + 4, y, f"m-{colour}"))

    def _clear(self, x: float, top: float, bottom: float) -> list[tuple[float, float]]:
        """Return the segments (top, bottom) of a vertical line at *x* that do not cross any text."""
        stretches = []
        words = self._kept_clear
        for base in sorted(y for left, right, y in words if left < x < right and top < y - 10 and y < bottom):
            stretches.append((top, base - 11))
            top = base + 4
        return [(begin, end) for begin, end in (*stretches, (top, bottom)) if end > begin]


def _look(mark: Curve | Dots | Bars) -> str:
    """Return the type of legend sample for a mark: hatch, bars, dash, line or dots."""
    match mark:
        case Bars():
            return "hatch" if mark.struck else "bars"
        case Curve():
            return "dash" if mark.dashed else "line"
        case Dots():
            return "dots"
