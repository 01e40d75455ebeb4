"""Runtime selection: the named runtime, else the one that runs the lab, else Docker if it works, else netns."""

from netns_engine import variables
from runtime.docker_lab import DockerLab
from runtime.errors import EngineError, UsageError
from runtime.lab import Lab
from runtime.netns_lab import NetnsLab
from runtime.topology import Topology

#: Environment variable that selects the runtime, like ``--runtime``.
VARIABLE = "FIRSTBYTE_RUNTIME"
RUNTIMES = ("docker", "netns")


def choose(topology: Topology, named: str | None = None) -> Lab:
    """Return the lab in the runtime *named*, else in the one that the environment names, else in an available one.

    Raises:
        UsageError: the named runtime does not exist.
        EngineError: Docker was named, but its engine does not respond.
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
    # Without a Dockerfile, as in an installed package, Docker can only use published images.
    buildable = (topology.project / "Dockerfile").exists() or "FIRSTBYTE_IMAGE" in values
    if netns.is_up or not buildable:
        return netns
    try:
        return DockerLab(topology)
    except EngineError:
        return netns
