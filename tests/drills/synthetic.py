"""Synthetic runs of drills, for tests of their verdicts."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drills.paths import Paths
from drills.rehearsal import HOST, Rehearsal
from experiments import Experiment, Result, Run, Verdict, parameters
from experiments.undo_log import UndoLog
from generator import Request
from monitor.openssl import Probe
from tests.experiments.lab import MemoryLab

#: Start of each synthetic run, in seconds since the epoch.
EPOCH = time.time()


def prepared(kind: type[Experiment[Any]], tmp_path: Path, **given: object) -> tuple[Experiment[Any], Run]:
    chosen = parameters.bind(kind.settings, quick=True, given=[f"{k}={v}" for k, v in given.items()])
    result = Result(kind.name, kind.claim, {}, control_fails=kind.control.fails)
    experiment = kind(chosen)
    result.prediction = dict(experiment.predict())
    return experiment, Run(MemoryLab(), result, UndoLog(tmp_path))


def stage(run: Run, seconds: float, rate: float, hosts: Sequence[str] = (HOST,)) -> Rehearsal:
    """Return a synthetic `Rehearsal` in which every request and every probe succeeds, with a latency of 20 ms."""
    made = Rehearsal(run, rate, hosts)
    made.epoch = EPOCH
    for number in range(int(seconds * rate)):
        at = number / rate
        kind = "fresh" if number % 2 else "pooled"
        made.requests.append(Request(at, kind, at + 0.0001, at + 0.02, serial="0a"))
    made.lag.add(0.0001)
    made.prober.probes.extend(Probe(at / 2, "", "0a") for at in range(int(seconds * 2)))
    return made


def break_requests(made: Rehearsal, begin: float, end: float, error: str, kind: str = "fresh") -> None:
    for each in made.requests:
        if each.kind == kind and begin <= each.sent < end:
            each.error = error


def verdict(run: Run, experiment: Experiment[Any]) -> tuple[Verdict, set[str]]:
    experiment.conclude(run)
    return run.result.verdict, {c.name for c in run.result.checks if not c.ok}


class Ways(Paths):
    def __init__(self) -> None:
        self.tried, self.every = [], 0.1
