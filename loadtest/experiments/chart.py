"""Data model of charts; `reports.drawing` renders them as SVG.

A chart has one or more panels above a common x axis.  Predictions are lines, measurements are dots, and states over
time are lanes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Number of a series (0 to 6) in the palette, or one of the names good, bad and mark.
Colour = int | str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points (x, y): thin for a prediction, thicker for a quantity measured over time."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: Colour = 0
    dashed: bool = False
    measured: bool = False
    #: Draw a step function, which keeps each value until the next point.
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Dots:
    """Measured points with confidence intervals: (x, y, low, high)."""

    label: str
    points: Sequence[tuple[float, float, float, float]]
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars, each (begin, end, height), stacked on the bars of earlier marks in the same panel."""

    label: str
    bars: Sequence[tuple[float, float, float]]
    colour: Colour = "good"
    #: Draw the bars hatched, so that they differ even without colour; bars in the colour "bad" are always hatched.
    hatched: bool = False

    @property
    def struck(self) -> bool:
        """Return whether the bars are drawn hatched."""
        return self.hatched or self.colour == "bad"


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled section of a lane, from *begin* to *end* on the x axis."""

    begin: float
    end: float
    text: str = ""
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of a panel: the states of one host, service or connection over time, as coloured spans."""

    label: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the stacked plots of a chart; it contains either marks or lanes."""

    marks: Sequence[Curve | Dots | Bars] = ()
    lanes: Sequence[Lane] = ()
    #: Label of the y axis: quantity and unit.
    y: str = ""
    height: int = 240
    log: bool = False
    #: Lower end of the y axis; None: fit the marks.
    low: float | None = 0.0
    #: Upper end of the y axis; None: fit the marks.
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A labelled vertical line through all panels at the x value `at`."""

    at: float
    text: str
    colour: Colour = "mark"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: panels above a common x axis, with title and caption."""

    title: str
    panels: Sequence[Panel]
    #: Label of the x axis: quantity and unit.
    x: str
    #: Explanation of how to read the chart.
    caption: str = ""
    moments: Sequence[Moment] = ()
    log: bool = False
    low: float | None = None
    high: float | None = None
    #: Put ticks of the x axis at whole numbers only.
    whole: bool = False
    #: Names to show on the x axis instead of numbers; the first is at x = 0, the second at x = 1, and so on.
    categories: Sequence[str] = ()
    #: Text from which the file name is derived; "": the title.
    name: str = ""

    @property
    def file_name(self) -> str:
        """Return the base name of the chart's files: at most eight words in lower case, joined by hyphens."""
        return _file_name(self.name or self.title)


@dataclass(frozen=True, slots=True)
class Ladder:
    """A ladder diagram of one connection: time runs downwards, and each packet is an arrow."""

    title: str
    #: ``packets`` of a trace's JSON (`waterfall.packets`), with at least one packet.
    packets: Mapping[str, Any]
    #: Explanation of what the packets show.
    caption: str = ""
    #: Text from which the file name is derived; "": the title.
    name: str = ""

    @property
    def file_name(self) -> str:
        """Return the base name of the diagram's files."""
        return _file_name(self.name or self.title)


def _file_name(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words[:8]) or "chart"
