"""The context of one run, passed to its experiment: lab, timeline, recorders and findings."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from experiments.findings import Findings
from experiments.lab import Admin, Lab
from experiments.operator import Operator
from experiments.recorders import Recorders
from experiments.result import Event, Result
from experiments.timeline import Timeline
from experiments.undo_log import UndoLog

T = TypeVar("T")
Arm = TypeVar("Arm")


class Skipped(Exception):  # noqa: N818 - skipping a run is not an error
    """The experiment cannot run on this machine; the message is the reason."""


class Run:
    """The context of one run, through which its experiment uses the lab and reports findings.

    Args:
        admin: client for the hosts' admin ports.
        result: result of the run, filled in as the run proceeds.
        undo_log: log of injections that have to be undone.
        progress: called with one line at a time: the current phase, and the estimated time left.
        duration: expected duration of the experiment in seconds.
        operator: runs commands outside the lab; None if the experiment was started inside.
    """

    def __init__(
        self,
        admin: Admin,
        result: Result,
        undo_log: UndoLog,
        progress: Callable[[str], None] = lambda _: None,
        duration: float = 0.0,
        operator: Operator | None = None,
    ) -> None:
        self.result, self.progress, self.duration = result, progress, duration
        self.timeline = Timeline()
        self.lab = Lab(admin, undo_log, self.timeline, operator)
        self.recorders = Recorders(self.lab)
        self.findings = Findings(result)
        #: Samples and histograms to store with the result, keyed by name.
        self.raw: dict[str, Any] = {}
        self.rng = random.Random()
        #: Whether the measurement has begun.  Before it begins, the links are calibrated and all faults must be off.
        self.measured = False

    @property
    def negative(self) -> bool:
        """Whether this run is the negative control."""
        return bool(self.result.control)

    def now(self) -> float:
        """Return seconds since the run began."""
        return self.timeline.now()

    async def until(self, moment: float) -> None:
        """Sleep until *moment*, in seconds since the run began; return immediately if *moment* has passed."""
        await self.timeline.until(moment)

    def note(self, kind: str, text: str) -> Event:
        """Record an event of type *kind* (observation or alarm) with the current time."""
        return self.timeline.note(kind, text)

    def phase(self, text: str) -> None:
        """Record the start of a phase, described by *text*, and report it as progress with the estimated time left."""
        self.timeline.note("phase", text)
        left = self.duration - self.now()
        self.progress(f"{text}{f'; about {left:.0f} s left' if left >= 1 else ''}")

    def interleaved(self, arms: Sequence[Arm], repeats: int) -> Iterator[tuple[int, Arm]]:
        """Yield pairs (repeat, arm): in each repeat, every arm of the experiment once.

        Each repeat shuffles the arms with the run's seed, so that drift of the machine affects all arms alike.
        """
        for repeat in range(repeats):
            order = list(arms)
            self.rng.shuffle(order)
            for arm in order:
                yield repeat, arm

    async def blocking(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a blocking function in a thread; return its result.  An interrupt takes effect when the call returns."""
        call = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait({call})  # else the thread could change the lab after the run has undone its injections
            if not call.cancelled():
                call.exception()  # marks an exception as seen; the interrupt is reported instead
            raise

    def skip(self, why: str) -> None:
        """End the run with the verdict "skipped"; *why* explains why this machine cannot run the experiment.

        Raises:
            Skipped: always.
        """
        raise Skipped(why)
