"""What all drills share: load, a baseline, an injection, and some load after it to show the recovery."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

from drills.rehearsal import HOST, Rehearsal, by_cause, distinct
from experiments import Experiment, Run


class HasRate(Protocol):
    """Parameters of a drill."""

    @property
    def rate(self) -> float:
        """Requests per second, half on fresh connections."""


P = TypeVar("P", bound=HasRate)


class Drill(Experiment[P]):
    """An experiment under steady load on the edge's name."""

    #: Hosts whose certificates and alarms are watched.
    hosts: ClassVar[Sequence[str]] = (HOST,)
    #: Seconds of load before the injection, and after it.
    before: ClassVar[float] = 3.0
    after: ClassVar[float] = 1.5
    records: ClassVar[tuple[str, ...]] = (HOST,)

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: None until measuring begins.
        self.stage: Rehearsal | None = None
        #: Seconds on the run's timeline: when the injections began and ended.
        self.began = self.ended = float("inf")

    async def measure(self, run: Run) -> None:
        """Inject under load."""
        stage = self.stage = Rehearsal(run, self.p.rate, self.hosts)
        async with stage.under_load():
            run.phase("baseline")
            await asyncio.sleep(self.before)  # load alone: the baseline
            await self.inject(run, stage)
            await asyncio.sleep(self.after)  # load alone: it shows whether the service has recovered

    @abstractmethod
    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Inject while load, prober and watch are running."""

    def conclude(self, run: Run) -> None:
        """Judge what was measured, if anything was."""
        if self.stage is not None:
            self.judge(run, self.stage)

    @abstractmethod
    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Add gates, rows, checks and the picture."""

    def check_nothing_lost(self, run: Run, stage: Rehearsal) -> None:
        """Check that no request was lost and no handshake from outside failed."""
        lost, failed = stage.lost(), stage.failed_probes()
        run.findings.row("requests lost", len(lost))
        run.findings.check("requests lost", "0", by_cause(lost), not lost)
        run.findings.check("handshakes from outside that failed", "0", distinct(failed), not failed)
