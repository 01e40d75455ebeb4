"""The drills by name."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drills import renewal_under_load
from experiments import Result
from generator import Request

Run = Callable[..., Awaitable[tuple[Result, list[Request], list[tuple[float, str]]]]]


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill."""

    name: str
    #: What it shows, in one sentence.
    claim: str
    run: Run


class UnknownDrillError(Exception):
    """There is no such drill."""


DRILLS = (Drill("renewal-under-load", renewal_under_load.CLAIM, renewal_under_load.run),)


def find(name: str) -> Drill:
    """Return the drill called *name*; raise `UnknownDrillError`."""
    for drill in DRILLS:
        if drill.name == name:
            return drill
    raise UnknownDrillError(f"expected one of {', '.join(d.name for d in DRILLS)}; got {name!r}")
