"""Runtimes that start the lab's hosts and send requests to them.

`DockerLab` uses Compose, the Docker SDK and ``docker exec``; `NetnsLab` runs the same hosts in network namespaces;
`choose` selects one of the two.  Inside the lab (``docker compose run lab``), `InsideLab` reaches admin ports over the
network.
"""

from runtime.choose import RUNTIMES, choose
from runtime.docker_lab import DockerLab
from runtime.errors import EngineError, LabDownError, LabError, NotHereError, RefusedError, UnknownHostError, UsageError
from runtime.inside import InsideLab
from runtime.lab import HostStatus, Lab
from runtime.netns_lab import NetnsLab
from runtime.subject import Source, Subject
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
    "Source",
    "Subject",
    "Topology",
    "UnknownHostError",
    "UsageError",
    "choose",
    "find_project",
]
