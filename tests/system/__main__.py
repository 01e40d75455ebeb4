"""``python -m tests.system [RUNTIME]``: run the system tests once in every runtime that works on this machine."""

import os
import subprocess
import sys

from runtime import RUNTIMES, Topology, choose, find_project
from runtime.machine import docker_problem, netns_problem

#: Exit code if no runtime works; the command line `firstbyte` uses the same code.
NO_RUNTIME = 3


def problem(runtime: str) -> str:
    """Return why *runtime* cannot run a lab on this machine, or ""."""
    why = docker_problem if runtime == "docker" else netns_problem
    return why(Topology.load(find_project()))


def occupied_by(runtime: str) -> str | None:
    """Return the other runtime if its running lab uses the ports that a lab in *runtime* would publish, else None."""
    topology = Topology.load(find_project())
    for other in RUNTIMES:
        if other != runtime and not problem(other):
            with choose(topology, other) as lab:
                if any(host.state == "running" for host in lab.status()):
                    return other
    return None


def main(arguments: list[str]) -> int:
    """Run pytest in each runtime; return the worst exit code, which is not 0 if no lab was tested."""
    wanted = arguments or list(RUNTIMES)
    if unknown := [each for each in wanted if each not in RUNTIMES]:
        print(f"tests.system: error: expected {' or '.join(RUNTIMES)}, got {unknown[0]!r}", file=sys.stderr)
        return 2
    problems = {each: problem(each) for each in wanted}
    usable = [each for each in wanted if not problems[each]]
    if not usable:
        reasons = "; ".join(f"{runtime}: {why}" for runtime, why in problems.items())
        print(f"tests.system: error: no runtime answers, so the lab was not tested ({reasons})", file=sys.stderr)
        return NO_RUNTIME
    worst = 0
    for runtime in usable:
        if other := occupied_by(runtime):
            print(
                f"tests.system: error: a lab is up on {other} and holds the ports: "
                f"`make down` makes room for one on {runtime}",
                file=sys.stderr,
            )
            worst = max(worst, NO_RUNTIME)
            continue
        print(f"--- the lab on {runtime}", flush=True)
        environment = {**os.environ, "FIRSTBYTE_RUNTIME": runtime}
        command = [sys.executable, "-m", "pytest", "-m", "system", "--durations=40", "tests"]
        command += ["--reruns", "2"] if "CI" in os.environ else []  # docs/decisions/0011
        worst = max(worst, subprocess.run(command, check=False, env=environment).returncode)
    for runtime, why in problems.items():
        if why:
            print(f"tests.system: the lab was not tested on {runtime}: {why}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
