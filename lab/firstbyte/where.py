"""Access to the lab from the current machine: through a runtime, or from inside the lab."""

from collections.abc import Iterator
from contextlib import contextmanager

from runtime import InsideLab, Lab, NotHereError, Topology, choose, find_project

#: A lab as seen from the machine that runs it, or from inside.
Way = Lab | InsideLab


@contextmanager
def lab() -> Iterator[Way]:
    """Yield the lab that is reachable from this machine."""
    if InsideLab.is_here():
        yield InsideLab()
        return
    with choose(Topology.load(find_project())) as found:
        yield found


@contextmanager
def outside(verb: str) -> Iterator[Lab]:
    """Yield the lab that runs on this machine; inside a lab, raise `NotHereError` for the command *verb*."""
    if InsideLab.is_here():
        raise NotHereError(f"`firstbyte {verb}` starts and stops hosts: run it outside the lab")
    with choose(Topology.load(find_project())) as found:
        yield found
