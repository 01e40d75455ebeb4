"""What runs the hosts of the lab, hidden behind one set of verbs: up, down, status, exec, start, stop, kill, pause.

Two ways lead to a host.  On a machine with a Docker engine, `DockerLab` starts and stops hosts through Compose and
the Docker SDK and reaches their admin ports through ``docker exec``.  Inside the lab (``docker compose run lab``),
`InsideLab` reaches admin ports over the network; hosts can not be killed from there.
"""

from runtime.docker_lab import DockerLab, HostStatus
from runtime.errors import EngineError, LabDownError, LabError, NotHereError, RefusedError, UnknownHostError, UsageError
from runtime.inside import InsideLab
from runtime.topology import Host, Topology, find_project

__all__ = [
    "DockerLab",
    "EngineError",
    "Host",
    "HostStatus",
    "InsideLab",
    "LabDownError",
    "LabError",
    "NotHereError",
    "RefusedError",
    "Topology",
    "UnknownHostError",
    "UsageError",
    "find_project",
]
