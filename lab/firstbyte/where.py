"""Where this command line runs: on a machine with a runtime, or inside the lab."""

from collections.abc import Iterator
from contextlib import contextmanager

from runtime import InsideLab, Lab, NotHereError, Topology, choose, find_project

#: A lab as seen from this machine, or from inside.
Way = Lab | InsideLab


@contextmanager
def lab() -> Iterator[Way]:
    """Give the lab that can be reached from here."""
    if InsideLab.is_here():
        yield InsideLab()
        return
    with choose(Topology.load(find_project())) as found:
        yield found


@contextmanager
def outside(verb: str) -> Iterator[Lab]:
    """Give the lab of this machine; raise `NotHereError` inside a lab, where *verb* is impossible."""
    if InsideLab.is_here():
        raise NotHereError(f"`firstbyte {verb}` starts and stops hosts: run it outside the lab")
    with choose(Topology.load(find_project())) as found:
        yield found
