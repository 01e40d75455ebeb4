"""Helpers that run scenarios without a lab and return the names of the checks that failed."""

from pathlib import Path

from experiments import Experiment
from experiments.result import Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from tests.experiments.lab import MemoryLab


def predicted(experiment: Experiment, folder: Path) -> Run:
    """Return a run of *experiment* that has predictions but no measurements yet."""
    control = experiment.control
    without = control.without if experiment.negative else ""
    result = Result(experiment.name, "", {}, control=without, control_fails=control.fails)
    result.prediction = dict(experiment.predict())
    return Run(MemoryLab(), result, UndoLog(folder))


def failed(run: Run) -> list[str]:
    """Return the names of the failed checks, in the order in which they were made."""
    return [check.name for check in run.result.checks if not check.ok]
