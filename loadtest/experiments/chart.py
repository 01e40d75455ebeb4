"""Pictures of an experiment as SVG, without any library: panels over one x axis, theory as lines, measurements as dots.

One text serves all: inline in a report, as a file of its own, in light, dark and print (the colours are classes), and
rasterised where a program for it is at hand (`rasterise`).  Colours are far apart for the colour-blind too (a test simulates
what they see), and no meaning hangs on colour alone: dots differ in shape, what was lost is hatched, lines in their dashes.
"""

import html
import math
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, LEFT, RIGHT = 960, 66, 24
#: Of a picture for a phone: there its letters are twice as large.
NARROW = 480
#: Pixels that one letter of a label takes, about; and of a small label.
LETTER, SMALL = 6.8, 5.8
LIGHT = {"ink": "#1b1f24", "soft": "#5b6570", "paper": "#ffffff", "grid": "#e4e7ea", "axis": "#9aa3ad"}
DARK = {"ink": "#e8eaed", "soft": "#9aa5b1", "paper": "#14171a", "grid": "#272c31", "axis": "#5b6570"}
#: Series 0 to 6; then good, bad and mark by name.
SERIES_LIGHT = ("#0068a8", "#c9510c", "#2e5038", "#a81ee8", "#a88c61", "#6498a6", "#5b6570")
SERIES_DARK = ("#5eb3f0", "#f58f4f", "#75e2ba", "#a06892", "#f1cb13", "#4370f1", "#9aa5b1")
NAMED_LIGHT = {"good": "#3a9b86", "bad": "#b3261e", "mark": "#a05200"}
NAMED_DARK = {"good": "#6fdcc0", "bad": "#f2553f", "mark": "#f0a04b"}
#: Of the lines through all panels; a series' number for what only divides the axis.
DASHES = {"mark": "7 3", "bad": "2 3", "good": "9 3 2 3"}
#: Outlines of dots, by the number of their series: around (0, 0), about nine pixels wide.  None is a circle.
SHAPES = {0: "M-4-4H4V4H-4Z", 2: "M0-5.6L5.6 0 0 5.6-5.6 0Z", 3: "M0-5.4L5 3.8H-5Z", 4: "M0 5.4L5-3.8H-5Z", 5: "M-5-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z"}  # fmt: skip
#: What a stretch's text is written in, paper or ink, has at least this contrast (WCAG 2) to it, or the other is taken.
CONTRAST = 3.5

#: Strokes over what was lost; its name ends in the picture's width, since a hidden picture's is of no use to another.
HATCH = "<defs><pattern id='hatch-{}' width='5' height='5' patternUnits='userSpaceOnUse' patternTransform='rotate(45)'><path class='hatch' d='M0 0V5' opacity='.6'/></pattern></defs>"

#: A series by number, or good, bad, mark.
Colour = int | str
#: Maps a value to pixels from the top.
Vertical = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: what theory predicts (thin), or what was counted over time (``measured``, thicker)."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: Colour = 0
    dashed: bool = False
    measured: bool = False
    #: Holds its value until the next point.
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Dots:
    """Measured points with intervals: (x, y, low, high)."""

    label: str
    points: Sequence[tuple[float, float, float, float]]
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars from *from* to *to*, stacked on the bars before: (from, to, height)."""

    label: str
    bars: Sequence[tuple[float, float, float]]
    colour: Colour = "good"
    #: Struck through, as bad ones always are: told from the others without colour.
    hatched: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a lane."""

    begin: float
    end: float
    text: str = ""
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of a panel of lanes: who held what, when."""

    label: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the stack: marks, or lanes."""

    marks: Sequence[Curve | Dots | Bars] = ()
    lanes: Sequence[Lane] = ()
    #: What the y axis counts, with its unit.
    y: str = ""
    height: int = 240
    log: bool = False
    #: The axis begins and ends here instead of where the marks do.
    low: float | None = 0.0
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A vertical line through every panel."""

    at: float
    text: str
    colour: Colour = "mark"


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture."""

    title: str
    panels: Sequence[Panel]
    #: What the x axis counts, with its unit.
    x: str
    #: How to read it, in a sentence.
    caption: str = ""
    moments: Sequence[Moment] = ()
    log: bool = False
    low: float | None = None
    high: float | None = None
    #: Ticks of the x axis at whole numbers only: between them there is nothing.
    whole: bool = False
    #: Names instead of numbers on the x axis: 0 is the first.
    categories: Sequence[str] = ()
    #: Of the files; made from the title otherwise.
    name: str = field(default="")

    @property
    def file_name(self) -> str:
        """Return the name of the picture's files, without suffix."""
        words = "".join(c if c.isalnum() else " " for c in (self.name or self.title).lower()).split()
        return "-".join(words[:8]) or "chart"


def style() -> str:
    """Return the style sheet that every picture needs, for light, dark and print."""
    return f"{_rules(LIGHT, SERIES_LIGHT, NAMED_LIGHT)}\n@media (prefers-color-scheme: dark) {{ @media screen {{ {_rules(DARK, SERIES_DARK, NAMED_DARK)} }} }}"


def svg(chart: Chart, *, standalone: bool = False, width: int = WIDTH) -> str:
    """Return the picture.

    Args:
        chart: what to draw.
        standalone: with its own style, title and paper, as a file.
        width: pixels: `WIDTH`, or `NARROW` for a phone.
    """
    drawn = _Drawing(chart, title=standalone, width=width)
    kind = "chart narrow" if width == NARROW else "chart"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' class='{kind}' viewBox='0 0 {width} {drawn.height:.0f}' role='img' aria-label='{_text(chart.title)}'"
    if not standalone:
        return f"{head}>{drawn.body}</svg>"
    return (
        f"{head} width='{width}' height='{drawn.height:.0f}'><style>{style()}</style>"
        f"<rect class='paper' width='{width}' height='{drawn.height:.0f}'/>{drawn.body}</svg>"
    )


def rasterise(source: Path, target: Path) -> bool:
    """Write *source* (SVG) as PNG at twice its size; return False where no program for it is at hand."""
    program = shutil.which("rsvg-convert")
    if program is None:
        return False
    done = subprocess.run([program, "--zoom", "2", "-o", str(target), str(source)], check=False, capture_output=True)
    if done.returncode:
        target.unlink(missing_ok=True)  # half of it, on a disk that is full
    return done.returncode == 0


def _rules(tone: dict[str, str], series: tuple[str, ...], named: dict[str, str]) -> str:
    colours = {str(i): c for i, c in enumerate(series)} | named
    each = "".join(
        f".chart .l-{k}{{stroke:{c};fill:none}}.chart .f-{k}{{fill:{c}}}.chart .o-{k}{{fill:{_readable(c, tone)};font-size:10px;stroke:none}}"
        for k, c in colours.items()
    )
    return (
        ".chart{font:12px system-ui,'DejaVu Sans',sans-serif}"
        f".chart text{{fill:{tone['soft']};paint-order:stroke;stroke:{tone['paper']};stroke-width:3px;stroke-linejoin:round}}.chart .ink{{fill:{tone['ink']}}}.chart .title{{fill:{tone['ink']};font-size:16px;font-weight:600}}"
        f".chart .grid{{stroke:{tone['grid']}}}.chart .axis{{stroke:{tone['axis']}}}.chart .paper{{fill:{tone['paper']}}}"
        f".chart .halo{{stroke:{tone['paper']};stroke-width:1.5}}.chart .hatch{{stroke:{tone['paper']};stroke-width:1.6}}{each}"
        f".chart .m-mark{{fill:{named['mark']}}}.chart .m-bad{{fill:{named['bad']}}}.chart .m-good{{fill:{named['good']}}}"
    )


def _readable(ground: str, tone: dict[str, str]) -> str:
    """Return the colour of letters on *ground*: the paper's, or where that is too near, whatever is darker or lighter."""
    ends = (tone["paper"], tone["ink"])
    return ends[0] if contrast(ground, ends[0]) >= CONTRAST else max(ends, key=lambda end: contrast(ground, end))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as ``#rrggbb``, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(one), linear(other)))
    return (high + 0.05) / (low + 0.05)


def linear(colour: str) -> tuple[float, float, float]:
    """Return a colour ``#rrggbb`` of sRGB as shares of light, 0 to 1 (IEC 61966-2-1)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _light(red), _light(green), _light(blue)


def _light(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _hatched(mark: Curve | Dots | Bars) -> bool:
    return isinstance(mark, Bars) and (mark.hatched or mark.colour == "bad")


class _Drawing:
    """Draws one chart; `body` and `height` are the result."""

    def __init__(self, chart: Chart, *, title: bool, width: int = WIDTH) -> None:
        self.chart, self.width, self.right = chart, width, width - RIGHT
        self.hatch = f"url(#hatch-{width})"
        # Grid and marks, then lines through all panels, then lanes and words, which nothing may cross.
        self._parts: list[str] = []
        self._lines: list[str] = []
        self._words: list[str] = []
        # Left, right and base of words that no moment's line may cross.
        self._said: list[tuple[float, float, float]] = []
        lanes = max((len(lane.label) for p in chart.panels for lane in p.lanes), default=0)
        self.left = max(LEFT, min(220, width * 0.36, 14 + lanes * LETTER))
        self.low, self.high = self._range()
        y = 6.0
        if title:
            self._over(f"<text class='title' x='8' y='{y + 16:.0f}'>{_text(chart.title)}</text>")
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
            for line in _wrap(chart.caption, int((width - 16) / LETTER)):
                self._over(f"<text x='8' y='{y + 14:.0f}'>{_text(line)}</text>")
                y += 16
        self.height = y + 8
        self.body = "".join((HATCH.format(width) if self._hatches else "", *self._parts, *self._lines, *self._words))

    @property
    def _hatches(self) -> bool:
        return any(_hatched(mark) for panel in self.chart.panels for mark in panel.marks)

    def _put(self, text: str) -> None:
        self._parts.append(text)

    def _over(self, text: str) -> None:
        self._words.append(text)

    def _say(self, words: str, x: float, y: float, how: str = "", *, before: float = 0.0) -> None:
        """Write words that the lines of moments go around, and what stands *before* them, too."""
        self._said.append((x - before - 3, x + len(words) * LETTER + 3, y))
        self._over(f"<text {how} x='{x:.1f}' y='{y:.1f}'>{_text(words)}</text>")

    def _dot(self, colour: Colour, x: float, y: float) -> str:
        shape = SHAPES.get(colour) if isinstance(colour, int) else None
        if shape is None:
            return f"<circle class='f-{colour} halo' cx='{x:.1f}' cy='{y:.1f}' r='4.5'/>"
        return f"<path class='f-{colour} halo' d='{shape}' transform='translate({x:.1f} {y:.1f})'/>"

    # --- x ----------------------------------------------------------------------------------------------------------

    def _range(self) -> tuple[float, float]:
        chart = self.chart
        if chart.categories:
            return -0.5, len(chart.categories) - 0.5
        values = list(_xs(chart.panels))
        low = min(values, default=0.0) if chart.low is None else chart.low
        high = max(values, default=1.0) if chart.high is None else chart.high
        return (low, high) if high > low else (low, low + 1)

    def x(self, value: float) -> float:
        """Return pixels from the left."""
        low, high, at = self.low, self.high, value
        if self.chart.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, low))
        return self.left + (self.right - self.left) * (at - low) / (high - low)

    def _x_axis(self, y: float) -> float:
        chart = self.chart
        if chart.categories:
            y = self._names(chart.categories, y)
        else:
            taken = -math.inf
            values = ticks(self.low, self.high, max(4, self.width // 96), log=chart.log)
            for value in (v for v in values if not chart.whole or v == round(v)):
                words, x = number(value), self.x(value)
                if x - len(words) * LETTER / 2 > taken:
                    self._over(f"<text x='{x:.1f}' y='{y + 14:.1f}' text-anchor='middle'>{words}</text>")
                    taken = x + len(words) * LETTER / 2 + 6
        for line in _wrap(chart.x, int((self.width - 16) / LETTER)):
            self._over(f"<text x='{self.right:.0f}' y='{y + 32:.1f}' text-anchor='end'>{_text(line)}</text>")
            y += 16
        return y + 20

    def _names(self, names: Sequence[str], y: float) -> float:
        """Write names side by side in lines; aslant where a word has no room."""
        room = int((self.right - self.left) / len(names) / LETTER)
        if max(len(word) for name in names for word in name.split()) > max(6, room):
            for i, name in enumerate(names):
                at = f"{self.x(i) + 4:.1f} {y + 12:.1f}"
                self._over(f"<text transform='translate({at}) rotate(-50)' text-anchor='end'>{_text(name)}</text>")
            return y + max(map(len, names)) * LETTER * math.sin(math.radians(50))
        lines = [_wrap(name, max(6, room)) for name in names]
        for i, words in enumerate(lines):
            for j, line in enumerate(words):
                self._over(f"<text x='{self.x(i):.1f}' y='{y + 14 + 13 * j:.1f}' text-anchor='middle'>{_text(line)}</text>")  # fmt: skip
        return y + 13 * (max(map(len, lines), default=1) - 1)

    # --- panels -----------------------------------------------------------------------------------------------------

    def _panel(self, panel: Panel, top: float) -> float:
        top = self._legend(panel, top)
        bottom = top + panel.height
        low, high = _vertical(panel)

        def y(value: float) -> float:
            if panel.log:
                part = (math.log10(max(value, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
            else:
                part = (value - low) / (high - low)
            return bottom - panel.height * min(1.03, max(-0.03, part))

        for value in ticks(low, high, max(4, panel.height // 40), log=panel.log):
            self._put(
                f"<line class='grid' x1='{self.left:.0f}' x2='{self.right}' y1='{y(value):.1f}' y2='{y(value):.1f}'/>"
            )
            self._over(f"<text x='{self.left - 7:.0f}' y='{y(value) + 4:.1f}' text-anchor='end'>{number(value)}</text>")
        self._put(f"<line class='axis' x1='{self.left:.0f}' x2='{self.right}' y1='{bottom:.1f}' y2='{bottom:.1f}'/>")
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
            at = max(at, 8 + len(panel.y) * LETTER + 24)
        entries: dict[tuple[str, Colour], set[str]] = {}
        for mark in panel.marks:
            kind = (
                "dots"
                if isinstance(mark, Dots)
                else ("hatch" if _hatched(mark) else "bars")
                if isinstance(mark, Bars)
                else "dash"
                if mark.dashed
                else "line"
            )
            if mark.label:
                entries.setdefault((mark.label, mark.colour), set()).add(kind)
        first = at
        for (label, colour), kinds in entries.items():
            lines = _wrap(label, int((self.right - 34) / LETTER))
            wide = 26 + max(map(len, lines)) * LETTER + 16
            if at + wide - 16 > self.right:
                first = first if at > first and first + wide - 16 <= self.right else 8
                at, y = first, y + 17
            if "bars" in kinds:
                self._over(f"<rect class='f-{colour}' x='{at:.1f}' y='{y - 10:.1f}' width='14' height='11' rx='2'/>")
            if "hatch" in kinds:
                box = f"x='{at:.1f}' y='{y - 10:.1f}' width='14' height='11' rx='2'/>"
                self._over(f"<rect class='f-{colour}' {box}<rect fill='{self.hatch}' {box}")
            if kinds & {"line", "dash"}:
                dash = " stroke-dasharray='5 4'" if "dash" in kinds else ""
                self._over(
                    f"<line class='l-{colour}' stroke-width='2'{dash} x1='{at:.1f}' x2='{at + 18:.1f}' y1='{y - 4:.1f}' y2='{y - 4:.1f}'/>"
                )
            if "dots" in kinds:
                self._over(self._dot(colour, at + 9, y - 4))
            self._say(lines[0], at + 23, y, before=26)
            for line in lines[1:]:
                y += 15
                self._say(line, at + 23, y)
            at += wide
        return y + 12

    def _bars(self, mark: Bars, stack: dict[tuple[float, float], float], y: Vertical) -> None:
        for begin, end, height in mark.bars:
            below = stack.get((begin, end), 0.0)
            stack[begin, end] = below + height
            if height <= 0:
                continue
            left, right = self.x(begin), self.x(end)
            gap = 0.8 if right - left > 4 else 0.0
            tall = max(2.0, y(below) - y(below + height))
            box = f"opacity='.85' x='{left:.1f}' y='{y(below) - tall:.1f}' width='{max(0.8, right - left - gap):.1f}' height='{tall:.1f}'/>"
            self._put(f"<rect class='f-{mark.colour}' {box}")
            if _hatched(mark):
                self._put(f"<rect fill='{self.hatch}' {box}")

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
            self._put(
                f"<line class='grid' x1='{self.left:.0f}' x2='{self.right}' y1='{y + tall / 2:.1f}' y2='{y + tall / 2:.1f}'/>"
            )
            self._over(f"<text class='ink' x='8' y='{y + 15:.1f}'>{_text(lane.label)}</text>")
            for span in lane.spans:
                left, right = self.x(span.begin), self.x(span.end)
                wide = max(2.0, right - left - 1)
                self._over(
                    f"<rect class='f-{span.colour}' x='{left:.1f}' y='{y + 2:.1f}' width='{wide:.1f}' height='{tall - 5}' rx='3'><title>{_text(span.text)}</title></rect>"
                )
                if words := cut(span.text, int((wide - 6) / SMALL)):
                    self._over(
                        f"<text class='o-{span.colour}' x='{left + 4:.1f}' y='{y + 14:.1f}'>{_text(words)}</text>"
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
        x, wide = self.x(moment.at), len(moment.text) * LETTER + 4
        return (x - wide, x) if x + wide > self.width and x > wide else (x, x + wide)

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
                    f"<text class='m-{moment.colour}' x='{x + (-4 if left else 4):.1f}' y='{y:.1f}'{anchor}>{_text(moment.text)}</text>"
                )

    def _free(self, x: float, top: float, bottom: float) -> list[tuple[float, float]]:
        """Return the stretches of a vertical line that cross no words."""
        stretches = []
        for base in sorted(y for left, right, y in self._said if left < x < right and top < y - 10 and y < bottom):
            stretches.append((top, base - 11))
            top = base + 4
        return [(begin, end) for begin, end in (*stretches, (top, bottom)) if end > begin]


def ticks(low: float, high: float, about: int, *, log: bool = False) -> list[float]:
    """Return round values between *low* and *high*, around *about* of them."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine: Sequence[float] = (1, 2, 5) if len(decades) <= 4 else (1,)
        if high < 10 * low:  # less than a decade
            fine = (1, 1.5, 2, 3, 4, 5, 6, 8)
        return [f * 10**d for d in decades for f in fine if low * 0.999 <= f * 10**d <= high * 1.001]
    raw = (high - low) / max(1, about)
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def cut(words: str, room: int) -> str:
    """Return as much of *words* as *room* letters hold; nothing where that would say nothing."""
    if len(words) <= room:
        return words
    return f"{words[: room - 1].rstrip()}…" if room >= 4 else ""


def number(value: float) -> str:
    """Return a tick's text."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _xs(panels: Iterable[Panel]) -> Iterable[float]:
    for panel in panels:
        for lane in panel.lanes:
            for span in lane.spans:
                yield from (span.begin, span.end)
        for mark in panel.marks:
            if isinstance(mark, Bars):
                for begin, end, _ in mark.bars:
                    yield from (begin, end)
            else:
                yield from (point[0] for point in mark.points)


def _vertical(panel: Panel) -> tuple[float, float]:
    tops: list[float] = []
    lows: list[float] = []
    stack: dict[tuple[float, float], float] = {}
    for mark in panel.marks:
        if isinstance(mark, Bars):
            for begin, end, height in mark.bars:
                stack[begin, end] = stack.get((begin, end), 0.0) + height
        elif isinstance(mark, Dots):
            tops.extend(p[3] for p in mark.points if not math.isnan(p[3]))
            lows.extend(p[2] for p in mark.points if not math.isnan(p[2]))
        else:
            tops.extend(p[1] for p in mark.points if not math.isnan(p[1]))
            lows.extend(p[1] for p in mark.points if not math.isnan(p[1]))
    tops.extend(stack.values())
    high = panel.high if panel.high is not None else max(tops, default=1.0) * 1.05
    if panel.log:
        positive = [each for each in (*lows, *tops) if each > 0]
        low = panel.low or min(positive, default=0.1) * 0.8
        return low, max(high, low * 10)
    low = panel.low if panel.low is not None else min(lows, default=0.0)
    low = min(low, *lows) if lows else low
    return (low, high) if high > low else (low, low + 1)


def _wrap(words: str, room: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
