"""``python -m tests.system [RUNTIME]``: the system tests once in every runtime that answers on this machine."""

import os
import subprocess
import sys

from runtime import RUNTIMES, Topology, choose, find_project
from runtime.machine import docker_problem, netns_problem


def answers(runtime: str) -> bool:
    """Return whether *runtime* can run a lab here."""
    problem = docker_problem if runtime == "docker" else netns_problem
    return not problem(Topology.load(find_project()))


def in_the_way(runtime: str) -> str | None:
    """Return the runtime whose lab is up and holds the published ports that one in *runtime* needs."""
    topology = Topology.load(find_project())
    for other in RUNTIMES:
        if other != runtime and answers(other):
            with choose(topology, other) as lab:
                if any(host.state == "running" for host in lab.status()):
                    return other
    return None


def main(arguments: list[str]) -> int:
    """Run pytest for each runtime; return the worst exit code."""
    wanted = arguments or list(RUNTIMES)
    if unknown := [each for each in wanted if each not in RUNTIMES]:
        print(f"tests.system: error: expected {' or '.join(RUNTIMES)}, got {unknown[0]!r}", file=sys.stderr)
        return 2
    usable = [each for each in wanted if answers(each)]
    if not usable:
        print(f"tests.system: no runtime answers ({', '.join(wanted)}): the lab was not tested", file=sys.stderr)
        return 3 if arguments or os.environ.get("CI") else 0
    worst = 0
    for runtime in usable:
        if other := in_the_way(runtime):
            print(f"tests.system: a lab is up on {other} and holds the ports: `make down`, then the lab on {runtime} can be tested", file=sys.stderr)  # fmt: skip
            worst = max(worst, 3)
            continue
        print(f"--- the lab on {runtime}", flush=True)
        environment = {**os.environ, "FIRSTBYTE_RUNTIME": runtime}
        command = [sys.executable, "-m", "pytest", "-m", "system", "--durations=15", "tests"]
        worst = max(worst, subprocess.run(command, check=False, env=environment).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
