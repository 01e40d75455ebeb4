"""Conducts one experiment: predict → calibrate → record → measure → undo → conclude.

Injections are undone even if the measurement fails or is interrupted.
"""

import asyncio
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments import gate, parameters
from experiments.experiment import Experiment
from experiments.lab import Admin
from experiments.operator import Operator
from experiments.recorders import HERE
from experiments.result import Result, manifest
from experiments.run import Run, Skipped
from experiments.undo_log import UndoLog, exclusive
from waterfall.lab import WAN, links, own_address

#: Number of times that a failed link calibration is repeated.
RETRIES = 3
#: Packages whose exceptions are caused by the lab (for example, a host that is down); like `OSError`, they are reported
#: without a traceback.
FROM_THE_LAB = {"runtime", "netns_engine", "waterfall", "generator", "stub"}


@dataclass(frozen=True, slots=True)
class Order:
    """Settings of one run, as given on the command line."""

    quick: bool = False
    #: Run the negative control instead of the experiment.
    control: bool = False
    seed: int = 1
    #: Parameters in the form ``name=value``.
    given: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A completed run, its result and its duration."""

    result: Result
    run: Run
    kind: type[Experiment[Any]]
    #: Duration of the whole run in seconds, including calibration and clean-up.
    took: float = 0.0


async def conduct(
    kind: type[Experiment[Any]],
    order: Order,
    admin: Admin,
    results: Path,
    *,
    addresses: dict[str, str],
    progress: Callable[[str], None] = lambda _: None,
    operator: Operator | None = None,
) -> Outcome:
    """Run one experiment and return its outcome; SIGINT and SIGTERM end the run early and keep its measurements.

    Args:
        kind: class of the experiment.
        order: settings of the run.
        admin: client for the hosts' admin ports.
        results: results folder, which holds the lock and the undo log.
        addresses: IPv4 address of each host by name, for calibration.
        progress: called with each progress message, one line at a time.
        operator: runs commands outside the lab; None if the experiment was started inside.

    Raises:
        ParameterError: a parameter is invalid; the lab is unchanged.
        BusyError: another experiment is running; the lab is unchanged.
        OSError: the results folder is not writable; the lab is unchanged.
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
        run = Run(admin, result, UndoLog(results), progress, experiment.duration(), operator)
        run.rng = random.Random(f"{kind.name}:{order.seed}")
        run.lab.undo_log.load()
        result.manifest = manifest()
        result.prediction = dict(experiment.predict())
        left_over: list[str] = []
        task = asyncio.ensure_future(_measure(experiment, run, addresses, left_over))
        with _interruptible(task):
            await asyncio.wait({task})
        _ended(task, run)
        cut_off = bool(result.interrupted)
        await run.recorders.stop(partial(run.note, "observation"))
        left_over = await run.lab.undo_all() or left_over
        if left_over:
            result.interrupted = f"could not be undone: {'; '.join(left_over)}"
        _conclude(experiment, run, cut_off=cut_off)
        result.events = run.timeline.events
    return Outcome(result, run, kind, time.monotonic() - began)


async def clean_up(
    admin: Admin, results: Path, progress: Callable[[str], None], operator: Operator | None = None
) -> list[str]:
    """Undo the injections that a killed run left in the lab.

    Returns:
        The description and the error of each injection that could not be undone.  These injections remain in the undo
        log.

    Raises:
        BusyError: the run that made the injections, or another experiment, is still running.
        OSError: the results folder is not writable.
    """
    with exclusive(results, "clean-up"):
        run = Run(admin, Result("clean-up", "", {}), UndoLog(results), progress, operator=operator)
        run.lab.undo_log.load()
        failed = await run.lab.undo_all()
    for event in run.timeline.events:
        progress(f"the run was killed; undone: {event.text}")
    return failed


async def _measure(experiment: Experiment[Any], run: Run, addresses: dict[str, str], left_over: list[str]) -> None:
    if pending := len(run.lab.undo_log):
        run.progress(f"an earlier run was killed: undoing {pending} injections")
        left_over += await run.lab.undo_all()
    await _prove_fit(experiment, run, addresses)
    if not all(check.ok for check in run.result.validity):
        return
    run.measured = True
    await run.recorders.start(HERE, *experiment.records)
    cpu, wall = time.process_time(), time.monotonic()
    try:
        await experiment.measure(run)
    finally:
        spent, window = time.process_time() - cpu, time.monotonic() - wall
        if window >= 1:  # in a shorter measurement, start-up dominates the CPU use
            run.result.validity.append(gate.generator(spent / window))
        run.raw["window"] = (wall - run.timeline.began, run.now())


async def _prove_fit(experiment: Experiment[Any], run: Run, addresses: dict[str, str]) -> None:
    """Check that no fault is switched on and that each link has its configured round-trip time."""
    answer = await run.lab.call("wan", "GET", "/admin/links")
    run.result.manifest["links"] = answer["links"]
    for host in dict.fromkeys((*experiment.records, *experiment.paths)):
        on = [name for name, fault in (await run.lab.call(host, "GET", "/admin/faults")).items() if fault["on"]]
        if on:
            run.findings.gate(f"faults of {host}", "none before we begin", ", ".join(on), ok=False)
    if not experiment.paths:
        return
    run.phase("calibrating links")
    configured, here = await run.blocking(links, WAN), await run.blocking(own_address, addresses["wan"])
    for host in experiment.paths:
        expected = configured.rtt_ms(here, addresses[host]) if configured is not None else None
        if expected is None:
            run.findings.gate(f"link to {host}", "a configured round-trip time", "none is known", ok=False)
            continue
        for attempt in range(1 + RETRIES):
            if attempt:
                await asyncio.sleep(1.0)  # wait before the retry: the machine may have been busy with another program
            check = gate.calibration(host, expected, await run.blocking(gate.round_trip_ms, addresses[host]))
            if check.ok:
                break
        run.result.validity.append(check)


def _ended(task: "asyncio.Future[None]", run: Run) -> None:
    """Record in the result if the measurement was skipped, was interrupted, or failed with an exception."""
    result = run.result
    if task.cancelled():
        result.interrupted = "interrupted: what was measured until then is kept"
        return
    error = task.exception()
    if isinstance(error, Skipped):
        result.skipped = str(error)
    elif error is not None:
        reason = str(error) or type(error).__name__
        phases = [event.text for event in run.timeline.events if event.kind == "phase"]
        if phases and type(error).__module__ in {"builtins", "ssl"}:  # such as “timed out”, which says too little
            reason = f"{phases[-1]}: {reason}"
        result.interrupted = f"it could not go on: {reason}"
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in FROM_THE_LAB:
            traceback.print_exception(error, file=sys.stderr)  # the cause is a bug in firstbyte or in the experiment


def _conclude(experiment: Experiment[Any], run: Run, *, cut_off: bool) -> None:
    """Add the validity gates and the experiment's conclusions to the result.

    If the measurement was *cut_off*, rows and charts are kept, but checks and gates of the experiment are dropped,
    because they could fail for lack of data.
    """
    result = run.result
    result.validity.extend(gate.quiet(run.recorders.series, experiment.subject))
    result.validity.extend(gate.recorders(run.recorders.series))
    if result.skipped or not run.measured:
        return
    gates = len(result.validity)
    try:
        experiment.conclude(run)
    except Exception as error:  # incomplete data may not suffice for a conclusion
        if not result.interrupted and all(check.ok for check in result.validity):
            raise
        run.note("observation", f"no conclusion from what was measured: {error!r}")
    if any(not check.ok for check in result.checks):  # a busy machine can make checks fail, but not make them pass
        result.validity.extend(gate.punctual(run.recorders.series))
    if cut_off:
        result.checks.clear()
        del result.validity[gates:]


@contextmanager
def _interruptible(task: "asyncio.Future[None]") -> Iterator[None]:
    """Let SIGINT and SIGTERM cancel *task*; ignore both signals afterwards, so that the clean-up always completes."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, task.cancel)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, lambda: None)
