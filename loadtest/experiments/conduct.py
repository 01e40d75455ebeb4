"""Conducts one experiment: predict → calibrate → record → measure → undo → conclude → report, whatever happens between."""

import asyncio
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from experiments import gate, parameters
from experiments.experiment import Experiment
from experiments.lab import Admin
from experiments.recorders import HERE
from experiments.result import Result, manifest
from experiments.run import Run, Skipped
from experiments.undo_log import UndoLog, exclusive
from waterfall.lab import WAN, links

#: Calibrations after one that failed.
RETRIES = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asked for."""

    quick: bool = False
    #: Run the control instead.
    control: bool = False
    seed: int = 1
    #: ``name=value``, as on the command line.
    given: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result, and what was drawn and kept beside it."""

    result: Result
    run: Run
    kind: type[Experiment[Any]]
    #: Seconds that the whole took.
    took: float = field(default=0.0)


async def conduct(
    kind: type[Experiment[Any]],
    order: Order,
    lab: Admin,
    results: Path,
    *,
    addresses: dict[str, str],
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run one experiment to its result; SIGINT and SIGTERM end it early, with what was measured kept.

    Args:
        kind: the experiment.
        order: how it is to run.
        lab: reaches admin ports.
        results: folder of results: the lock and the undo list are there.
        addresses: IPv4 address of each host, for calibration.
        progress: told one line at a time.

    Raises:
        ParameterError: an impossible parameter; nothing was touched.
        BusyError: another experiment is under way; nothing was touched.
        OSError: the results folder can not be written; nothing was touched.
    """
    began = time.monotonic()
    chosen = parameters.bind(kind.settings, quick=order.quick, given=order.given)
    experiment = kind(chosen, negative=order.control)
    experiment.seed = order.seed
    result = Result(
        kind.name,
        kind.claim,
        parameters.as_json(chosen),
        quick=order.quick,
        control=kind.control.without if order.control else "",
        control_fails=kind.control.fails,
        seed=order.seed,
    )
    with exclusive(results, kind.name):
        run = Run(lab, result, UndoLog(results), progress, experiment.duration())
        run.rng = random.Random(f"{kind.name}:{order.seed}")
        run.lab.undo_log.load()
        result.manifest = manifest()
        result.prediction = dict(experiment.predict())
        left_over: list[str] = []
        task = asyncio.ensure_future(_measure(experiment, run, addresses, left_over))
        with _interruptible(task):
            await asyncio.wait({task})
        _ended(task, result)
        await run.recorders.stop(partial(run.note, "observation"))
        left_over = await run.lab.undo_all() or left_over
        if left_over:
            result.interrupted = f"could not be undone: {'; '.join(left_over)}"
        _conclude(experiment, run)
        result.events = run.timeline.events
    return Outcome(result, run, kind, time.monotonic() - began)


async def clean_up(lab: Admin, results: Path, progress: Callable[[str], None]) -> list[str]:
    """Take back what a run that was killed left in the lab; return what could not be, which stays on the list.

    Raises:
        BusyError: that run, or another, is still under way.
        OSError: the results folder can not be written.
    """
    with exclusive(results, "clean-up"):
        run = Run(lab, Result("clean-up", "", {}), UndoLog(results), progress)
        run.lab.undo_log.load()
        failed = await run.lab.undo_all()
    for event in run.timeline.events:
        progress(f"the run was killed; undone: {event.text}")
    return failed


async def _measure(experiment: Experiment[Any], run: Run, addresses: dict[str, str], left_over: list[str]) -> None:
    if len(run.lab.undo_log):
        run.progress(f"a run before this one was cut off: taking back {len(run.lab.undo_log)} injections")
        left_over += await run.lab.undo_all()
    await _fit(experiment, run, addresses)
    if not all(check.ok for check in run.result.validity):
        return
    run.measured = True
    await run.recorders.start(HERE, *experiment.records)
    cpu, wall = time.process_time(), time.monotonic()
    try:
        await experiment.measure(run)
    finally:
        spent, window = time.process_time() - cpu, time.monotonic() - wall
        if window >= 1:  # in less, starting up is most of it
            run.result.validity.append(gate.generator(spent / window))
        run.raw["window"] = (wall - run.timeline.began, run.now())


async def _fit(experiment: Experiment[Any], run: Run, addresses: dict[str, str]) -> None:
    """Is the lab as declared, and do its links do what they are told?"""
    answer = await run.lab.call("wan", "GET", "/admin/links")
    run.result.manifest["links"] = answer["links"]
    for host in dict.fromkeys((*experiment.records, *experiment.paths)):
        on = [name for name, fault in (await run.lab.call(host, "GET", "/admin/faults")).items() if fault["on"]]
        if on:
            run.findings.gate(f"faults of {host}", "none before we begin", ", ".join(on), ok=False)
    if not experiment.paths:
        return
    run.phase("calibrating links")
    configured, here = await run.blocking(links, WAN), await run.blocking(_own_address, addresses["wan"])
    for host in experiment.paths:
        expected = configured.rtt_ms(here, addresses[host]) if configured is not None else None
        if expected is None:
            run.findings.gate(f"link to {host}", "a configured round-trip time", "none is known", ok=False)
            continue
        measured = await run.blocking(gate.round_trip_ms, addresses[host])
        check = gate.calibration(host, expected, measured)
        for _ in range(RETRIES):
            if check.ok:
                break
            await asyncio.sleep(1.0)  # a machine that has just started something else is not a broken link
            check = gate.calibration(host, expected, await run.blocking(gate.round_trip_ms, addresses[host]))
        run.result.validity.append(check)


def _own_address(peer: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((peer, 9))
        address: str = sock.getsockname()[0]
        return address


def _ended(task: "asyncio.Future[None]", result: Result) -> None:
    if task.cancelled():
        result.interrupted = "interrupted: what was measured until then is kept"
        return
    error = task.exception()
    if isinstance(error, Skipped):
        result.skipped = str(error)
    elif error is not None:
        result.interrupted = f"it could not go on: {error or type(error).__name__}"
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in {"runtime", "waterfall", "generator", "stub"}:  # fmt: skip
            traceback.print_exception(error, file=sys.stderr)  # not of the lab's making: a defect of ours


def _conclude(experiment: Experiment[Any], run: Run) -> None:
    result = run.result
    result.validity.extend(gate.quiet(run.recorders.series, experiment.subject))
    result.validity.extend(gate.recorders(run.recorders.series))
    if result.skipped or not run.measured:  # nothing is there to conclude from
        return
    try:
        experiment.conclude(run)
    except Exception as error:  # with half of the data a conclusion may not be possible: then there is none
        if not result.interrupted and all(check.ok for check in result.validity):
            raise
        run.note("observation", f"no conclusion from what there is: {error!r}")


class _interruptible:  # noqa: N801 - used as a statement
    """Turns SIGINT and SIGTERM into the end of one task."""

    def __init__(self, task: "asyncio.Future[None]") -> None:
        self._task = task

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._task.cancel)

    def __exit__(self, *_: object) -> None:
        # Clean-up is under way: a second signal must not stop it half-way.
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, lambda: None)
