"""Base class of the drills: load before, during and after an injection, and checks that all drills share."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

from drills.rehearsal import HOST, Rehearsal, by_cause, distinct
from experiments import Experiment, Run


class HasRate(Protocol):
    """Parameters that every drill has."""

    @property
    def rate(self) -> float:
        """Load in requests per second; half of the requests use a new connection."""


P = TypeVar("P", bound=HasRate)


class Drill(Experiment[P]):
    """An experiment that injects faults while the edge is under steady load."""

    #: Hosts whose certificates and alarms are monitored.
    hosts: ClassVar[Sequence[str]] = (HOST,)
    #: Duration of the load before the injection, in seconds.
    before: ClassVar[float] = 3.0
    #: Duration of the load after the injection, in seconds.
    after: ClassVar[float] = 1.5
    records: ClassVar[tuple[str, ...]] = (HOST,)

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Load, prober and monitoring of the run; None until the measurement begins.
        self.stage: Rehearsal | None = None
        #: Start and end of the injections, in seconds on the run's timeline.
        self.began = self.ended = float("inf")

    async def measure(self, run: Run) -> None:
        """Run the baseline, the injection and the recovery phase under load."""
        stage = self.stage = Rehearsal(run, self.p.rate, self.hosts)
        async with stage.under_load():
            run.phase("baseline")
            await asyncio.sleep(self.before)  # load before the injection, as a baseline
            await self.inject(run, stage)
            await asyncio.sleep(self.after)  # the load shows whether the service has recovered

    @abstractmethod
    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Inject the faults of this drill; the load, the prober and the monitoring are running."""

    def conclude(self, run: Run) -> None:
        """Evaluate the measurement; do nothing if it has not begun."""
        if self.stage is not None:
            self.judge(run, self.stage)

    @abstractmethod
    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Add this drill's validity gates, result rows, checks and charts to the run."""

    def check_nothing_lost(self, run: Run, stage: Rehearsal) -> None:
        """Add checks that no request was lost and that no handshake of the outside prober failed."""
        lost, failed = stage.lost(), stage.failed_probes()
        run.findings.row("requests lost", len(lost))
        run.findings.check("requests lost", "0", by_cause(lost), not lost)
        run.findings.check("handshakes from outside that failed", "0", distinct(failed), not failed)
