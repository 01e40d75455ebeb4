"""How long the lab takes to come up, host by host, what it holds in memory, and how long it takes to go.

Asks the lab from outside while it comes up, so that the same figures come from both runtimes.  The lab must be down.

    python bench/lab_boot.py --runtime netns
    python bench/lab_boot.py --runtime docker --no-build
"""

import argparse
import sys
import threading
import time
from dataclasses import dataclass

from runtime import RUNTIMES, Lab, LabError, Topology, choose, find_project

#: Seconds between two looks: the resolution of every figure.
LOOK = 0.05


@dataclass(slots=True)
class Seen:
    """When a host was first seen running, and first seen well; seconds after the start."""

    running: float | None = None
    well: float | None = None


def watch(lab: Lab, began: float, done: threading.Event, seen: dict[str, Seen]) -> None:
    while not done.wait(LOOK):
        try:
            hosts = lab.status()
        except LabError:  # not there yet
            continue
        now = time.monotonic() - began
        for host in hosts:
            entry = seen.setdefault(host.name, Seen())
            if host.state in {"running", "exited"} and entry.running is None:
                entry.running = now
            if (host.health == "healthy" or (host.state == "exited" and not host.health)) and entry.well is None:
                entry.well = now


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--no-build", action="store_true", help="take the image as it is (docker)")
    parser.add_argument("--no-ports", action="store_true", help="publish nothing (netns)")
    args = parser.parse_args(argv)
    seen: dict[str, Seen] = {}
    try:
        with choose(Topology.load(find_project()), args.runtime) as lab:
            if any(host.state == "running" for host in lab.status()):
                print(f"the lab is up ({lab.runtime}): end it first", file=sys.stderr)
                return 3
            done, began = threading.Event(), time.monotonic()
            watcher = threading.Thread(target=watch, args=(lab, began, done, seen))
            watcher.start()
            try:
                lab.up(build=not args.no_build, publish=not args.no_ports)
                up = time.monotonic() - began
            finally:
                done.set()
                watcher.join()
            memory = {host.name: host.memory for host in lab.status(memory=True) if host.memory is not None}
            began = time.monotonic()
            lab.down()
            down = time.monotonic() - began
            runtime = lab.runtime
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{'host':12}{'running':>9}{'well':>9}{'MiB':>7}")
    for name, entry in sorted(seen.items(), key=lambda item: (item[1].well or 1e9, item[0])):
        if entry.running is not None:
            resident = f"{memory[name] / 2**20:7.0f}" if name in memory else ""
            print(f"{name:12}{entry.running:7.2f} s{entry.well or up:7.2f} s{resident}")
    total = sum(memory.values()) / 2**20
    print(
        f"{runtime}: up {up:.1f} s, down {down:.1f} s, {total:.0f} MiB in {len(memory)} hosts; looked every {LOOK:g} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
