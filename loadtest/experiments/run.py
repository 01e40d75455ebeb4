"""One run: the lab, the timeline, the recorders and the findings that an experiment works with."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from experiments.findings import Findings
from experiments.lab import Admin, Lab
from experiments.recorders import Recorders
from experiments.result import Event, Result
from experiments.timeline import Timeline
from experiments.undo_log import UndoLog

T = TypeVar("T")
Arm = TypeVar("Arm")


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """This machine cannot show it; the text says why."""


class Run:
    """One run, as its experiment sees it.

    Args:
        admin: reaches the hosts' admin ports.
        result: to be filled in.
        undo_log: where injections are written down.
        progress: called with one line at a time: what happens, and how long it still takes.
        duration: seconds that the experiment expects to take.
    """

    def __init__(
        self,
        admin: Admin,
        result: Result,
        undo_log: UndoLog,
        progress: Callable[[str], None] = lambda _: None,
        duration: float = 0.0,
    ) -> None:
        self.result, self.progress, self.duration = result, progress, duration
        self.timeline = Timeline()
        self.lab = Lab(admin, undo_log, self.timeline)
        self.recorders = Recorders(self.lab)
        self.findings = Findings(result)
        #: Samples and histograms to keep with the result, by name.
        self.raw: dict[str, Any] = {}
        self.rng = random.Random()
        #: Whether measuring began, which it does once the lab has proven fit.
        self.measured = False

    @property
    def negative(self) -> bool:
        """Whether this is the control."""
        return bool(self.result.control)

    def now(self) -> float:
        """Return seconds since the run began."""
        return self.timeline.now()

    async def until(self, moment: float) -> None:
        """Sleep until *moment*, in seconds since the run began; return at once if it has passed."""
        await self.timeline.until(moment)

    def note(self, kind: str, text: str) -> Event:
        """Record an observation or an alarm that happens now."""
        return self.timeline.note(kind, text)

    def phase(self, text: str) -> None:
        """Announce what happens from now on."""
        self.timeline.note("phase", text)
        left = self.duration - self.now()
        self.progress(f"{text}{f'; about {left:.0f} s left' if left >= 1 else ''}")

    def interleaved(self, arms: Sequence[Arm], repeats: int) -> Iterator[tuple[int, Arm]]:
        """Yield each arm once per repeat, in an order shuffled by the seed, so that drift affects all arms alike."""
        for repeat in range(repeats):
            order = list(arms)
            self.rng.shuffle(order)
            for arm in order:
                yield repeat, arm

    async def blocking(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run blocking code in a thread; keep it short, since an interruption waits for it."""
        return await asyncio.to_thread(function, *arguments, **named)

    def skip(self, why: str) -> None:
        """End the run as skipped, because this machine cannot show it.

        Raises:
            Skipped: always.
        """
        raise Skipped(why)
