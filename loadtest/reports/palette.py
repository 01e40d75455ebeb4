"""Chart colours for light mode, dark mode and print; shapes, dashes and hatches for readers who cannot see colours."""

from dataclasses import dataclass

#: Minimum contrast ratio (WCAG 2) for text in the paper colour on a coloured area; see `Palette.readable`.
CONTRAST = 3.5


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as ``#rrggbb``, which colour-blind readers can distinguish (a test simulates their vision)."""

    ink: str
    soft: str
    paper: str
    grid: str
    axis: str
    #: Colours of series 0 to 6.
    series: tuple[str, ...]
    good: str
    bad: str
    mark: str

    def readable(self, ground: str) -> str:
        """Return the text colour for an area in the colour *ground*.

        This is the paper colour if its contrast is at least `CONTRAST`; otherwise paper or ink, whichever contrasts
        more.
        """
        ends = (self.paper, self.ink)
        return ends[0] if contrast(ground, ends[0]) >= CONTRAST else max(ends, key=lambda end: contrast(ground, end))

    def rules(self) -> str:
        """Return the palette as CSS rules, with three classes per colour.

        The prefix of the class is ``l-`` for lines, ``f-`` for filled areas, and ``o-`` for text on a filled area.
        """
        named = {"good": self.good, "bad": self.bad, "mark": self.mark}
        each = "".join(
            f".chart .l-{k}{{stroke:{c};fill:none}}.chart .f-{k}{{fill:{c}}}"
            f".chart .o-{k}{{fill:{self.readable(c)};font-size:10px;stroke:none}}"
            for k, c in (*enumerate(self.series), *named.items())
        )
        return (
            ".chart{font:12px system-ui,'DejaVu Sans',sans-serif}"
            f".chart text{{fill:{self.soft};paint-order:stroke;"
            f"stroke:{self.paper};stroke-width:3px;stroke-linejoin:round}}"
            f".chart .ink{{fill:{self.ink}}}.chart .title{{fill:{self.ink};font-size:16px;font-weight:600}}"
            f".chart .grid{{stroke:{self.grid}}}.chart .axis{{stroke:{self.axis}}}.chart .paper{{fill:{self.paper}}}"
            f".chart .halo{{stroke:{self.paper};stroke-width:1.5}}"
            f".chart .hatch{{stroke:{self.paper};stroke-width:1.6}}{each}"
            f".chart .m-mark{{fill:{self.mark}}}.chart .m-bad{{fill:{self.bad}}}.chart .m-good{{fill:{self.good}}}"
        )


LIGHT = Palette(
    ink="#1b1f24",
    soft="#5b6570",
    paper="#ffffff",
    grid="#e4e7ea",
    axis="#9aa3ad",
    series=("#0068a8", "#c9510c", "#2e5038", "#a81ee8", "#a88c61", "#6498a6", "#5b6570"),
    good="#3a9b86",
    bad="#b3261e",
    mark="#a05200",
)
DARK = Palette(
    ink="#e8eaed",
    soft="#9aa5b1",
    paper="#14171a",
    grid="#272c31",
    axis="#5b6570",
    series=("#5eb3f0", "#f58f4f", "#75e2ba", "#a06892", "#f1cb13", "#4370f1", "#9aa5b1"),
    good="#6fdcc0",
    bad="#f2553f",
    mark="#f0a04b",
)
#: Dash pattern (SVG stroke-dasharray) of the vertical lines that mark events, keyed by colour.
DASHES = {"mark": "7 3", "bad": "2 3", "good": "9 3 2 3"}
#: Dot shapes, keyed by series number: SVG paths centred at (0, 0), about nine pixels wide; other series use a circle.
SHAPES = {
    0: "M-4-4H4V4H-4Z",
    2: "M0-5.6L5.6 0 0 5.6-5.6 0Z",
    3: "M0-5.4L5 3.8H-5Z",
    4: "M0 5.4L5-3.8H-5Z",
    5: "M-5-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
}
#: SVG pattern for hatched bars.  Its ID contains the picture's width, since browsers do not apply a pattern that is
#: defined in a hidden picture, and a page hides either the wide or the narrow one.
HATCH = (
    "<defs><pattern id='hatch-{}' width='5' height='5' patternUnits='userSpaceOnUse' patternTransform='rotate(45)'>"
    "<path class='hatch' d='M0 0V5' opacity='.6'/></pattern></defs>"
)


def style() -> str:
    """Return the style sheet of all charts, for light mode, dark mode and print."""
    return f"{LIGHT.rules()}\n@media (prefers-color-scheme: dark) {{ @media screen {{ {DARK.rules()} }} }}"


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours ``#rrggbb``, from 1 to 21 (WCAG 2.1)."""
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(one), linear(other)))
    return (high + 0.05) / (low + 0.05)


def linear(colour: str) -> tuple[float, float, float]:
    """Convert an sRGB colour ``#rrggbb`` to linear red, green and blue, each from 0 to 1 (IEC 61966-2-1)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _light(red), _light(green), _light(blue)


def _light(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
