"""What an experiment is: one file that reads like its row in the catalogue (`scenarios`, `drills`).

    class TimeWait(Experiment[Parameters]):
        name, claim = "time-wait", "Who closes first keeps the port for a minute; quick connections run out of ports."
        control = Control("…what is switched off", fails=("exhausted at",))

        def predict(self) -> …       theory, before anything is sent
        async def measure(self, run) inject and measure; keeps what it saw in attributes
        def conclude(self, run)      rows, checks, charts, from what was kept

One instance is one run.  `experiments.conduct` gives it everything else: parameters, clean-up, validity, result, report.
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
    """The same experiment with its safety, or its right model, taken away: it must fail, and here."""

    #: What is taken away, in a few words.
    without: str
    #: Names of the checks of which at least one must fail; a failure elsewhere proves nothing.
    fails: tuple[str, ...]


class Experiment(ABC, Generic[P]):
    """One run of one experiment."""

    #: On the command line.
    name: ClassVar[str]
    #: What is claimed, in one sentence.
    claim: ClassVar[str]
    #: What the textbook, a paper or an outage says about it.
    says: ClassVar[str] = ""
    #: Where the theory comes from.
    source: ClassVar[str] = ""
    #: What it means for somebody who runs services.
    production: ClassVar[str] = ""
    #: Python file that it was loaded from; empty for the scenarios and drills of firstbyte.
    file: ClassVar[str] = ""
    #: A frozen dataclass made of `experiments.parameter`.
    settings: ClassVar[type[Any]]
    control: ClassVar[Control]
    #: Hosts whose kernel counters are recorded; the machine that generates load is always.
    records: ClassVar[tuple[str, ...]] = ()
    #: Hosts to which the round-trip time must be what is configured, or the run is invalid.
    paths: ClassVar[tuple[str, ...]] = ()
    #: Counters that may rise, since they are what is studied.
    subject: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        self.p = parameters
        #: Whether this run is the control.
        self.negative = negative
        #: Of schedules and other random choices, beside `Run.rng`.
        self.seed = 1

    @abstractmethod
    def predict(self) -> Mapping[str, Quantity]:
        """Return what theory says will be measured, by the names of the rows."""

    @abstractmethod
    async def measure(self, run: Run) -> None:
        """Inject and measure."""

    @abstractmethod
    def conclude(self, run: Run) -> None:
        """Draw rows, checks and charts from what was measured; also after an interruption, with what there is."""

    def duration(self) -> float:
        """Return about how many seconds `measure` takes, for the progress line."""
        return 30.0


Kind = type[Experiment[object]]
