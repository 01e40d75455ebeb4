"""An experiment that is not part of firstbyte: loaded from a Python file, or from standard input (``-``).

It is one file, so that it can be sent into the lab as it is: outside, `firstbyte run ./mine.py` passes it to the run's
standard input, and no image has to be rebuilt.
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

#: Name under which the file is imported.
MODULE = "own_experiment"
#: Bytes that a file may have.
MAX_SIZE = 1 << 20
#: What the class has to declare, and of which type.
DECLARED: dict[str, type] = {"name": str, "claim": str, "settings": type, "control": Control}


class NotAnExperimentError(UsageError):
    """The file is not what `firstbyte new` writes: one line that says where and why."""


@dataclass(frozen=True, slots=True)
class Own:
    """An experiment and the text that it came from."""

    kind: type[Experiment[Any]]
    source: bytes


def is_file(name: str) -> bool:
    """Return whether *name* on the command line is a file and not the name of an experiment."""
    return name == "-" or name.endswith(".py") or "/" in name


def load(name: str, taken: frozenset[str]) -> Own:
    """Return the experiment in the file *name*, or on standard input.

    Args:
        name: a path, or ``-``.
        taken: names of the experiments of firstbyte, whose results it must not be mixed with.

    Raises:
        NotAnExperimentError: there is no such file, it is not Python, or not exactly one complete experiment.
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
    sys.modules[MODULE] = module  # dataclasses look their module up
    try:
        exec(compile(source, label, "exec"), module.__dict__)  # noqa: S102 - running the user's file is the purpose
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes, before Python 3.12
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
        raise NotAnExperimentError(f"{label}: the name {kind.name!r} is taken by an experiment of firstbyte: choose another")  # fmt: skip
