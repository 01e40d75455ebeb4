"""A user's own experiment, loaded from a Python file or from standard input (``-``).

An experiment is a single file, so it can be sent into the lab without rebuilding an image: outside the lab, `firstbyte
run ./mine.py` passes the file to standard input of the run inside.
"""

import inspect
import sys
import traceback
from argparse import ArgumentTypeError
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import Control, Experiment
from firstbyte.arguments import experiment_name
from runtime import UsageError

#: Module name under which the file is imported.
MODULE = "own_experiment"
#: Maximum size of the file, in bytes.
MAX_SIZE = 1 << 20
#: Attributes that the experiment class must declare, and their types.
DECLARED: dict[str, type] = {"name": str, "claim": str, "settings": type, "control": Control}


class NotAnExperimentError(UsageError):
    """The file does not define a valid experiment; the one-line message gives the location and the reason."""


@dataclass(frozen=True, slots=True)
class Own:
    """An experiment class and its source text."""

    kind: type[Experiment[Any]]
    source: bytes


def is_file(name: str) -> bool:
    """Return whether *name* on the command line is a file rather than the name of an experiment."""
    return name == "-" or name.endswith(".py") or "/" in name


def load(name: str, taken: frozenset[str]) -> Own:
    """Load the experiment in the file *name* or from standard input.

    Args:
        name: a path, or ``-``.
        taken: names of the built-in experiments, which the file must not reuse because results are stored by name.

    Raises:
        NotAnExperimentError: the file does not exist, is not valid Python, or does not define exactly one complete
            experiment.
    """
    label = "standard input" if name == "-" else name
    try:
        source = sys.stdin.buffer.read(MAX_SIZE + 1) if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise NotAnExperimentError(f"{label}: {error.strerror}") from None
    if len(source) > MAX_SIZE:
        raise NotAnExperimentError(f"{label}: expected at most {MAX_SIZE} bytes")
    kind = _only_experiment(_import(source, label), label)
    _check(kind, label, taken)
    kind.file = "" if name == "-" else Path(name).name
    kind.file = f"./{kind.file or f'{kind.name}.py'}"
    return Own(kind, source)


def _import(source: bytes, label: str) -> ModuleType:
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module  # `dataclasses` looks up the module of a class in `sys.modules`
    try:
        exec(compile(source, label, "exec"), module.__dict__)  # noqa: S102 - running the user's file is the purpose
    except (SyntaxError, ValueError) as error:  # Python before 3.12 raises ValueError for null bytes
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise NotAnExperimentError(f"{label}{line}: {getattr(error, 'msg', error)}") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == label]
        where = f", line {lines[-1]}" if lines else ""
        raise NotAnExperimentError(f"{label}{where}: {type(error).__name__}: {error}") from None
    return module


def _only_experiment(module: ModuleType, label: str) -> type[Experiment[Any]]:
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Experiment) and each.__module__ == MODULE
    ]
    whole = [each for each in found if not inspect.isabstract(each)]
    if len(whole) == 1:
        return whole[0]
    if len(found) == 1:
        missing = ", ".join(sorted(found[0].__abstractmethods__))
        raise NotAnExperimentError(f"{label}: {found[0].__name__} lacks a method: {missing}")
    names = ", ".join(each.__name__ for each in whole) or "none"
    raise NotAnExperimentError(f"{label}: expected one class derived from experiments.Experiment, found {names}")


def _check(kind: type[Experiment[Any]], label: str, taken: frozenset[str]) -> None:
    for name, wanted in DECLARED.items():
        value = getattr(kind, name, None)
        if not isinstance(value, wanted) or (name == "settings" and not is_dataclass(value)):
            what = {"settings": "a dataclass", "control": "a Control"}.get(name, "a text")
            raise NotAnExperimentError(f"{label}: expected {kind.__name__}.{name} to be {what}, got {value!r}")
    try:
        experiment_name(kind.name)
    except ArgumentTypeError as error:
        raise NotAnExperimentError(f"{label}: {kind.__name__}.name: {error}") from None
    if kind.name in taken:
        raise NotAnExperimentError(
            f"{label}: the name {kind.name!r} is taken by an experiment of firstbyte: choose another"
        )
