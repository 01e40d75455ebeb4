"""What runs the hosts of the lab, hidden behind one set of verbs: up, down, status, exec, start, stop, kill, pause.

Three ways lead to a host.  On a machine with a Docker engine, `DockerLab` starts and stops hosts through Compose and
the Docker SDK and reaches their admin ports through ``docker exec``.  On one without, `NetnsLab` starts the same hosts in
network namespaces.  Inside the lab (``docker compose run lab``), `InsideLab` reaches admin ports over the network; hosts
can not be killed from there.  `choose` says which of the first two it is.
"""

from runtime.choose import RUNTIMES, choose
from runtime.docker_lab import DockerLab
from runtime.errors import EngineError, LabDownError, LabError, NotHereError, RefusedError, UnknownHostError, UsageError
from runtime.inside import InsideLab
from runtime.lab import HostStatus, Lab
from runtime.netns_lab import NetnsLab
from runtime.topology import Host, Topology, find_project

__all__ = [
    "RUNTIMES",
    "DockerLab",
    "EngineError",
    "Host",
    "HostStatus",
    "InsideLab",
    "Lab",
    "LabDownError",
    "LabError",
    "NetnsLab",
    "NotHereError",
    "RefusedError",
    "Topology",
    "UnknownHostError",
    "UsageError",
    "choose",
    "find_project",
]
