"""Where this command line runs: on a machine with an engine, or inside the lab."""

from collections.abc import Iterator
from contextlib import contextmanager

from runtime import DockerLab, InsideLab, NotHereError, Topology, find_project

Lab = DockerLab | InsideLab


@contextmanager
def lab() -> Iterator[Lab]:
    """Give whichever lab can be reached from here."""
    if InsideLab.is_here():
        yield InsideLab()
        return
    with DockerLab(Topology.load(find_project())) as docker_lab:
        yield docker_lab


@contextmanager
def docker_lab(verb: str) -> Iterator[DockerLab]:
    """Give the lab on the engine; *verb* can not be done from inside."""
    if InsideLab.is_here():
        raise NotHereError(f"`firstbyte {verb}` needs the engine: run it outside the lab, or use `docker compose`")
    with DockerLab(Topology.load(find_project())) as found:
        yield found
