"""Chooses the runtime: the one that is named, else the one in which the lab is up, else Docker if it answers, else netns."""

from netns_engine import variables
from runtime.docker_lab import DockerLab
from runtime.errors import EngineError, UsageError
from runtime.lab import Lab
from runtime.netns_lab import NetnsLab
from runtime.topology import Topology

#: Environment variable that names the runtime, as ``--runtime`` does.
VARIABLE = "FIRSTBYTE_RUNTIME"
RUNTIMES = ("docker", "netns")


def choose(topology: Topology, named: str | None = None) -> Lab:
    """Return the lab of *topology* in the runtime called *named*, or named by the environment, or available.

    Raises:
        UsageError: there is no such runtime.
        EngineError: Docker was named and does not answer.
    """
    values = variables.read(topology.project)
    named = named or values.get(VARIABLE)
    if named == "docker":
        return DockerLab(topology)
    netns = NetnsLab(topology)
    if named == "netns":
        return netns
    if named:
        raise UsageError(f"unknown runtime {named!r}: expected one of {', '.join(RUNTIMES)}")
    # Without a Dockerfile, as in an installed package, Docker needs published images.
    buildable = (topology.project / "Dockerfile").exists() or "FIRSTBYTE_IMAGE" in values
    if netns.is_up or not buildable:
        return netns
    try:
        return DockerLab(topology)
    except EngineError:
        return netns
