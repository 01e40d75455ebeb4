"""The base class of experiments; each experiment is one file in `scenarios` or `drills`.

    class TimeWait(Experiment[Parameters]):
        name = "time-wait"
        claim = "The side that closes first keeps the port for a minute; quick connections use up all ports."
        control = Control("…what is switched off", fails=("exhausted at",))

        def predict(self) -> …       computes predictions from theory, before anything is sent
        async def measure(self, run) injects, measures, and stores the measurements in attributes
        def conclude(self, run)      adds rows, checks and charts, computed from those attributes

One instance is one run.  `experiments.conduct` handles parameters, clean-up, validity gates and the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from experiments.result import Quantity
from experiments.run import Run

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Control:
    """The negative control: the same experiment with its mechanism or model removed, so that it must fail."""

    #: Short name of the mechanism or model that the control removes.
    without: str
    #: Names of checks; at least one of them must fail.  If only other checks fail, the control is invalid.
    fails: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question that a student answers before the run, and that the run's measurement then settles."""

    #: The question put to the student: complete, including the conditions of the measurement.
    question: str
    #: Name of the result row whose measured value is the answer; both quick and full runs have this row.
    row: str
    #: Unit of the answer; "" for a plain number.
    unit: str
    #: Largest difference from the measured value at which a student's answer counts as right, in *unit*.
    tolerance: float


class Experiment(ABC, Generic[P]):
    """Base class of all experiments; one instance is one run."""

    #: Name of the experiment on the command line.
    name: ClassVar[str]
    #: The hypothesis, in one sentence.
    claim: ClassVar[str]
    #: Background: a statement of the textbook, a paper or an outage report on this topic.
    says: ClassVar[str] = ""
    #: Source of the theory (RFC section, paper or book).
    source: ClassVar[str] = ""
    #: Practical consequence for people who operate services.
    production: ClassVar[str] = ""
    #: Path of the Python file that defines a user's own experiment; "" for firstbyte's scenarios and drills.
    file: ClassVar[str] = ""
    #: Parameters of the experiment: a frozen dataclass whose fields are declared with `experiments.parameter`.
    settings: ClassVar[type[Any]]
    control: ClassVar[Control]
    #: Hosts whose kernel counters are recorded, in addition to the load generator's own.
    records: ClassVar[tuple[str, ...]] = ()
    #: Hosts whose links are calibrated: the run is invalid unless the measured round-trip times are as configured.
    paths: ClassVar[tuple[str, ...]] = ()
    #: Counters of `gate.QUIET` that may rise, because the experiment provokes the drops that they count.
    subject: ClassVar[tuple[str, ...]] = ()
    #: Whether the experiment runs commands outside the lab (`Lab.operate`).
    operated: ClassVar[bool] = False
    #: Two or three questions for students.
    lessons: ClassVar[tuple[Lesson, ...]] = ()

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        self.p = parameters
        #: Whether this run is the negative control.
        self.negative = negative
        #: Random seed for load schedules; other random choices use `Run.rng`.
        self.seed = 1

    @abstractmethod
    def predict(self) -> Mapping[str, Quantity]:
        """Return the values that theory predicts, keyed by row name."""

    @abstractmethod
    async def measure(self, run: Run) -> None:
        """Make the injections, measure, and store the measurements in attributes."""

    @abstractmethod
    def conclude(self, run: Run) -> None:
        """Add rows, checks and charts; after an interruption, the measurements may be incomplete."""

    def duration(self) -> float:
        """Return the approximate duration of `measure` in seconds, for the progress line."""
        return 30.0


Kind = type[Experiment[object]]
