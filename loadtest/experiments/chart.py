"""What a picture of an experiment is: panels over one x axis, theory as lines, measurements as dots, and who held what as lanes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

#: A series by number, or good, bad, mark.
Colour = int | str


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

    @property
    def struck(self) -> bool:
        """Return whether these bars are drawn hatched."""
        return self.hatched or self.colour == "bad"


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
