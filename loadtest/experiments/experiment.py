"""The base class of experiments: each is one file that reads like its row in the catalogue (`scenarios`, `drills`).

    class TimeWait(Experiment[Parameters]):
        name, claim = "time-wait", "The side that closes first keeps the port for a minute; quick connections use up all ports."
        control = Control("…what is switched off", fails=("exhausted at",))

        def predict(self) -> …       theory, before anything is sent
        async def measure(self, run) injects, measures, and keeps what it saw in attributes
        def conclude(self, run)      adds rows, checks and charts from those attributes

One instance is one run.  `experiments.conduct` does the rest: parameters, clean-up, validity, result.
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
    """The same experiment without its safety, or without its correct model: it must fail."""

    #: What is missing, in a few words.
    without: str
    #: Names of checks, of which at least one must fail; a failure of other checks alone proves nothing.
    fails: tuple[str, ...]


class Experiment(ABC, Generic[P]):
    """One run of one experiment."""

    #: Its name on the command line.
    name: ClassVar[str]
    #: The hypothesis, in one sentence.
    claim: ClassVar[str]
    #: Background: what the textbook, a paper or an outage report says about it.
    says: ClassVar[str] = ""
    #: Where the theory comes from.
    source: ClassVar[str] = ""
    #: What it means for people who run services.
    production: ClassVar[str] = ""
    #: The Python file that it was loaded from; "" for the scenarios and drills of firstbyte.
    file: ClassVar[str] = ""
    #: Its parameters: a frozen dataclass with fields made by `experiments.parameter`.
    settings: ClassVar[type[Any]]
    control: ClassVar[Control]
    #: Hosts whose kernel counters are recorded, in addition to those of the load generator.
    records: ClassVar[tuple[str, ...]] = ()
    #: Hosts to which the measured round-trip time must match the configured one; otherwise the run is invalid.
    paths: ClassVar[tuple[str, ...]] = ()
    #: Counters of `gate.QUIET` that may rise because they are what is studied.
    subject: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        self.p = parameters
        #: Whether this run is the control.
        self.negative = negative
        #: Seed of load schedules; other random choices use `Run.rng`.
        self.seed = 1

    @abstractmethod
    def predict(self) -> Mapping[str, Quantity]:
        """Return what theory predicts, by the names of the rows."""

    @abstractmethod
    async def measure(self, run: Run) -> None:
        """Inject and measure."""

    @abstractmethod
    def conclude(self, run: Run) -> None:
        """Add rows, checks and charts from what was measured; after an interruption that may be only a part."""

    def duration(self) -> float:
        """Return roughly how many seconds `measure` takes, for the progress line."""
        return 30.0


Kind = type[Experiment[object]]
