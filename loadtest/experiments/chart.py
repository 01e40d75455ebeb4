"""Charts as data: panels over one x axis, with theory as lines, measurements as dots, and states over time as lanes.

`reports.drawing` draws them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: The number of a series, or good, bad, mark.
Colour = int | str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: a prediction (thin), or something measured over time (thicker)."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: Colour = 0
    dashed: bool = False
    measured: bool = False
    #: Keep the value until the next point.
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Dots:
    """Measured points with intervals: (x, y, low, high)."""

    label: str
    points: Sequence[tuple[float, float, float, float]]
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars as (begin, end, height), stacked on the bars of earlier marks."""

    label: str
    bars: Sequence[tuple[float, float, float]]
    colour: Colour = "good"
    #: Hatched, so that they can be told apart without colour; bad ones always are.
    hatched: bool = False

    @property
    def struck(self) -> bool:
        """Return whether the bars are drawn hatched."""
        return self.hatched or self.colour == "bad"


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of a lane."""

    begin: float
    end: float
    text: str = ""
    colour: Colour = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of a panel of lanes."""

    label: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the stacked pictures of a chart: marks or lanes."""

    marks: Sequence[Curve | Dots | Bars] = ()
    lanes: Sequence[Lane] = ()
    #: Quantity and unit of the y axis.
    y: str = ""
    height: int = 240
    log: bool = False
    #: Ends of the y axis; None: as the marks need.
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
    """A chart."""

    title: str
    panels: Sequence[Panel]
    #: Quantity and unit of the x axis.
    x: str
    #: How to read it.
    caption: str = ""
    moments: Sequence[Moment] = ()
    log: bool = False
    low: float | None = None
    high: float | None = None
    #: Ticks of the x axis at whole numbers only.
    whole: bool = False
    #: Names instead of numbers on the x axis; the first is at 0.
    categories: Sequence[str] = ()
    #: Name of its files; "": made from the title.
    name: str = ""

    @property
    def file_name(self) -> str:
        """Return the name of its files, without suffix."""
        words = "".join(c if c.isalnum() else " " for c in (self.name or self.title).lower()).split()
        return "-".join(words[:8]) or "chart"
