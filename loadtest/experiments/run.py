"""What an experiment holds while it runs: the lab's admin ports, injections that are always undone, recorders, findings."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from experiments.chart import Chart
from experiments.estimate import Estimate
from experiments.journal import Journal, Undo
from experiments.lettering import number
from experiments.result import Check, Event, Quantity, Result, Row
from experiments.timeline import Timeline
from linuxnet.recorder import Recorder, Watch

#: What samples of a recorder there are per second.
HZ = 10.0
#: Seconds that one admin request may take.
TIMEOUT = 15.0
#: Our own kernel counters, among those of the hosts.
HERE = "here"
T = TypeVar("T")
Arm = TypeVar("Arm")


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """This machine can not show it; the text says why."""


class Lab(Protocol):
    """A way to the admin ports (`runtime.InsideLab`, or a test's own)."""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = TIMEOUT) -> Any:
        """Send one admin request; return its JSON."""


@dataclass(frozen=True, slots=True)
class Series:
    """Kernel counters of one host over time; seconds on the run's time line."""

    times: tuple[float, ...]
    columns: dict[str, Any]
    #: (second, "local remote", TCP_INFO) of watched sockets.
    sockets: tuple[tuple[float, str, dict[str, int]], ...] = ()
    #: CPU seconds that recording took.
    cost: float = 0.0

    def of(self, name: str) -> list[tuple[float, float]]:
        """Return (second, value) of a counter; zeros for one that this kernel does not have."""
        column = self.columns.get(name, 0)
        values = column if isinstance(column, list) else [column] * len(self.times)
        return list(zip(self.times, values, strict=True))

    def rise(self, name: str, begin: float = 0.0, end: float = float("inf")) -> float:
        """Return by how much a counter rose between two seconds."""
        values = [value for at, value in self.of(name) if begin - 1 / HZ <= at <= end + 1 / HZ]
        return values[-1] - values[0] if values else 0.0

    def rate(self, name: str) -> list[tuple[float, float]]:
        """Return (second, rise per second) between samples."""
        points = self.of(name)
        return [((a + b) / 2, (y - x) / (b - a)) for (a, x), (b, y) in pairwise(points) if b > a]


@dataclass(slots=True)
class Run:
    """One run, as its experiment sees it."""

    lab: Lab
    result: Result
    journal: Journal
    #: One line for people: what happens, and how long it still takes.
    progress: Callable[[str], None] = lambda _: None
    #: Seconds that the experiment expects to take.
    duration: float = 0.0
    timeline: Timeline = field(default_factory=Timeline)
    charts: list[Chart] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    #: Whatever should be kept beside the result, by name: samples, histograms.
    raw: dict[str, Any] = field(default_factory=dict)
    rng: random.Random = field(default_factory=random.Random)
    #: Whether measuring began: everything was fit before.
    measured: bool = False
    _recording: list[str] = field(default_factory=list)
    _recorder: Recorder = field(default_factory=Recorder)

    @property
    def negative(self) -> bool:
        """Whether this is the control."""
        return bool(self.result.control)

    # --- time -------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return seconds since the run began."""
        return self.timeline.now()

    async def until(self, moment: float) -> None:
        """Wait for *moment*, in seconds since the run began; one that has passed is not waited for."""
        await asyncio.sleep(max(0.0, moment - self.now()))  # what is measured runs beside it

    def phase(self, text: str) -> None:
        """Say what happens from now on."""
        self.timeline.note("phase", text)
        left = self.duration - self.now()
        self.progress(f"{text}{f'; about {left:.0f} s left' if left >= 1 else ''}")

    def note(self, kind: str, text: str) -> Event:
        """Write down what happened: observation or alarm."""
        return self.timeline.note(kind, text)

    def interleaved(self, arms: Sequence[Arm], repeats: int) -> Iterator[tuple[int, Arm]]:
        """Yield each arm once per repeat, in an order that the seed shuffles: drift hits every arm alike."""
        for repeat in range(repeats):
            order = list(arms)
            self.rng.shuffle(order)
            for arm in order:
                yield repeat, arm

    async def blocking(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run blocking code in a thread: keep it short, an interruption waits for it."""
        return await asyncio.to_thread(function, *arguments, **named)

    # --- the lab ----------------------------------------------------------------------------------------------------

    async def call(self, host: str, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> Any:
        """Send one admin request without holding anything up."""
        return await asyncio.to_thread(self.lab.call, host, method, path, body, timeout=timeout)

    async def inject(self, text: str, host: str, method: str, path: str, body: Any = None, *, undo: Undo | None) -> Any:
        """Send an admin request that changes the lab.

        Args:
            text: what it is, in a few words, for the time line.
            host: whose admin port.
            method: HTTP method.
            path: of the request.
            body: of the request.
            undo: how to take it back: written to disk first.  None: nothing to take back.
        """
        if undo is not None:
            self.journal.add(undo)
        answer = await self.call(host, method, path, body, timeout=60.0)
        self.timeline.note("injection", text)
        return answer

    async def fault(self, host: str, name: str, **parameters: Any) -> Undo:
        """Switch a fault on; `undo` takes it back, and so does the end of the run."""
        undo = Undo(f"fault {name} of {host}", host, "DELETE", f"/admin/faults/{name}")
        await self.inject(f"{host}: {name} on", host, "POST", f"/admin/faults/{name}", parameters, undo=undo)
        return undo

    @contextlib.asynccontextmanager
    async def fault_on(self, host: str, name: str, **parameters: Any) -> AsyncIterator[None]:
        """Keep a fault switched on."""
        undo = await self.fault(host, name, **parameters)
        try:
            yield
        finally:
            await asyncio.shield(self.undo(undo))

    async def clock(self, host: str, offset: float) -> Undo:
        """Set the wall clock of *host* off by *offset* seconds."""
        undo = Undo(f"clock of {host}", host, "PUT", "/admin/clock", {"offset_s": 0})
        await self.inject(f"{host}: clock {offset:+g} s", host, "PUT", "/admin/clock", {"offset_s": offset}, undo=undo)
        return undo

    async def link(self, a: str, b: str, *, one_way: bool = False, **settings: Any) -> Undo:
        """Change the link between two regions (rtt_ms, jitter_ms, loss, rate_bps, …); both directions unless *one_way*."""
        query = "?direction=one" if one_way else ""
        undo = Undo(f"link {a}:{b}", "wan", "DELETE", f"/admin/links/{a}/{b}{query}")
        words = ", ".join(f"{key} {value:g}" if isinstance(value, (int, float)) else f"{key} {value}" for key, value in settings.items())  # fmt: skip
        await self.inject(f"{a}:{b} {words}", "wan", "PUT", f"/admin/links/{a}/{b}{query}", settings, undo=undo)
        return undo

    async def undo(self, undo: Undo) -> None:
        """Take one injection back."""
        await self.call(undo.host, undo.method, undo.path, undo.body)
        if undo in self.journal.undos:
            self.journal.done(undo)
        self.timeline.note("undone", undo.text)

    async def undo_all(self) -> list[str]:
        """Take everything back, the last first; return what could not be, which stays on the list for the next run."""
        failed = []
        for undo in reversed(tuple(self.journal.undos)):
            try:
                await self.undo(undo)
            except Exception as error:  # the host may be gone: go on with the others, and say so
                failed.append(f"{undo.text}: {error}")
        return failed

    # --- recorders --------------------------------------------------------------------------------------------------

    async def record(self, *hosts: str, sockets: Watch | None = None) -> None:
        """Record kernel counters of *hosts* (`HERE`: our own) ten times a second until the run ends.

        Args:
            hosts: names.
            sockets: take TCP_INFO of these, too.
        """
        body = {"hz": HZ, "seconds": 3600}
        if sockets is not None:
            body["sockets"] = {"local_port": sockets.local_port, "remote_port": sockets.remote_port}  # type: ignore[assignment]  # JSON is Any
        for host in hosts:
            if host == HERE:
                self._recorder.start(HZ, 3600, sockets)
            else:
                await self.call(host, "POST", "/admin/recorder", body)
            if host not in self._recording:
                self._recording.append(host)

    async def recorded(self) -> None:
        """End every recorder and fetch what it has; a host that is gone keeps its own."""
        for host in self._recording:
            try:
                if host == HERE:
                    recording = self._recorder.stop()
                    found = {} if recording is None else recording.as_json()
                else:
                    found = await self.call(host, "DELETE", "/admin/recorder")
            except Exception as error:  # gone: what else was measured still counts
                self.note("observation", f"no counters of {host}: {error}")
                continue
            began = self.timeline.began
            self.series[host] = Series(
                tuple(at - began for at in found.get("time", ())),
                found.get("columns", {}),
                tuple((at - began, name, info) for at, name, info in found.get("sockets", ())),
                found.get("cpu_s", 0.0),
            )
        self._recording.clear()

    # --- findings ---------------------------------------------------------------------------------------------------

    def row(self, name: str, measured: Estimate | float, unit: str = "") -> Row:
        """Put a measurement beside its prediction, which has the same name."""
        predicted: Quantity | None = self.result.prediction.get(name)
        estimate = measured if isinstance(measured, Estimate) else Estimate(measured, measured, measured)
        row = Row(name, predicted.unit if predicted else unit, predicted.value if predicted else None, estimate)
        self.result.rows.append(row)
        return row

    def check(
        self,
        name: str,
        expected: str,
        got: str,
        ok: bool,
        *,
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """Add a condition of the verdict.

        Args:
            name: of what is checked.
            expected: in words.
            got: in words.
            ok: whether it holds.
            value: what was compared, where it is one number that varies from run to run: repeats judge its median.
            low: smallest value that is right.
            high: largest value that is right.
        """
        self.result.checks.append(Check(name, expected, got, ok, value, low, high))

    def check_near(self, row: Row, tolerance: float, *, absolute: bool = False) -> None:
        """Check that a row's measurement lies within *tolerance* of its prediction (a share of it, or *absolute*)."""
        predicted, got = row.predicted or 0.0, row.measured.value
        room = tolerance if absolute else tolerance * abs(predicted)
        within = f"± {tolerance:g}{f' {row.unit}' if row.unit else ''}" if absolute else f"± {tolerance:.0%}"
        unit = f" {row.unit}" if row.unit else ""
        bounds = (
            {"value": got, "low": predicted - room, "high": predicted + room} if room else {}
        )  # exact: in every run
        self.check(
            row.name,
            f"{number(predicted)}{unit} {within}",
            f"{number(got)}{unit}",
            abs(got - predicted) <= room,
            **bounds,
        )

    def gate(self, name: str, expected: str, got: str, ok: bool) -> None:
        """Add a condition without which the measurement proves nothing."""
        self.result.validity.append(Check(name, expected, got, ok))

    def fact(self, name: str, value: Any) -> None:
        """Keep a measurement that has no prediction."""
        self.result.facts[name] = value

    def chart(self, chart: Chart) -> None:
        """Add a picture."""
        self.charts.append(chart)

    def leave_out(self, text: str) -> None:
        """Say which part this machine can not show, and why."""
        self.result.left_out.append(text)

    def skip(self, why: str) -> None:
        """End the run: this machine can not show it."""
        raise Skipped(why)
