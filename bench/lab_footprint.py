"""Measures start-up duration, memory and shutdown duration of the whole lab in each runtime.

    python bench/lab_footprint.py [docker] [netns] [--json]

On Docker, the lab is restarted (volumes are kept), so nothing else may use it during the benchmark. In network
namespaces, a second lab is started without published ports. The benchmark polls the state of the hosts in both
runtimes, so the times until each host runs and is healthy are comparable.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from netns_engine.state import StateFolder
from runtime import RUNTIMES, DockerLab, EngineError, Lab, LabError, NetnsLab, Topology, find_project

#: Limits, keyed by runtime: seconds until every host is healthy, and total resident memory of all hosts in bytes.
LIMITS = {"docker": (40.0, 900 << 20), "netns": (12.0, 900 << 20)}
#: Polling interval in seconds; it is also the resolution of every time in the report.
LOOK = 0.05


@dataclass(slots=True)
class Host:
    """When a host was first observed running and first healthy, in seconds after the start; its memory in bytes."""

    running_s: float | None = None
    well_s: float | None = None
    resident_bytes: int | None = None


@dataclass(slots=True)
class Cost:
    """Start-up and shutdown durations of the lab in one runtime, and measurements of its hosts."""

    runtime: str
    up_s: float = 0.0
    down_s: float | None = None
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def resident(self) -> int:
        """Total resident memory of all hosts, in bytes."""
        return sum(host.resident_bytes or 0 for host in self.hosts.values())

    @property
    def kept(self) -> bool:
        """Whether the start-up time and the memory are within their limits."""
        seconds, size = LIMITS[self.runtime]
        return self.up_s <= seconds and self.resident <= size


def measure(lab: Lab) -> Cost:
    """Start the lab, measure it, and stop it so that it does not affect the next measurement."""
    try:
        cost = come_up(lab)
    finally:
        began = time.monotonic()
        lab.down()
    cost.down_s = time.monotonic() - began
    return cost


def come_up(lab: Lab) -> Cost:
    """Start the lab; return when each host was running and healthy, and how much memory it used then."""
    cost, done, began = Cost(lab.runtime), threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(LOOK):
            try:
                look(lab, cost, time.monotonic() - began)
            except LabError:  # the lab has not started yet
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        lab.up(build=False, publish=lab.runtime == "docker")
        cost.up_s = time.monotonic() - began
    finally:
        done.set()
        watcher.join()
    look(lab, cost, cost.up_s)
    for host in lab.status(memory=True):
        if host.name in cost.hosts:
            cost.hosts[host.name].resident_bytes = host.memory
    return cost


def look(lab: Lab, cost: Cost, now: float) -> None:
    for host in lab.status():
        if host.state not in {"running", "exited"}:
            continue
        seen = cost.hosts.setdefault(host.name, Host())
        seen.running_s = now if seen.running_s is None else seen.running_s
        if seen.well_s is None and (host.health == "healthy" or (host.state == "exited" and not host.health)):
            seen.well_s = now


def on_docker(topology: Topology) -> Cost:
    with DockerLab(topology) as lab:
        lab.up()  # build missing images, so that the build is not timed
        lab.down(volumes=False)
        return measure(lab)


def in_namespaces(topology: Topology) -> Cost:
    with one_more(topology) as lab:
        return measure(lab)


@contextmanager
def one_more(topology: Topology) -> Iterator[NetnsLab]:
    with tempfile.TemporaryDirectory() as folder:
        lab = NetnsLab(topology, StateFolder(Path(folder) / "state"))
        try:
            yield lab
        finally:
            lab.down()


def main(argv: list[str] | None = None) -> int:
    """Measure the lab once per runtime; return 1 if a limit is exceeded, 3 if no runtime is available."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runtime", nargs="*", help="docker, netns; default: all that answer")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.runtime) - set(RUNTIMES)):
        parser.error(f"expected {' or '.join(RUNTIMES)}, got {unknown[0]!r}")
    costs = []
    try:
        topology = Topology.load(find_project())
        for runtime in args.runtime or RUNTIMES:
            try:
                costs.append(on_docker(topology) if runtime == "docker" else in_namespaces(topology))
            except EngineError as error:
                if args.runtime:
                    raise
                print(f"lab_footprint: no {runtime}: {error}", file=sys.stderr)
    except LabError as error:
        print(f"lab_footprint: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps([{**asdict(c), "resident_bytes": c.resident, "ok": c.kept} for c in costs], indent=2))
    else:
        for cost in costs:
            show(cost)
    return 3 if not costs else 0 if all(cost.kept for cost in costs) else 1


def show(cost: Cost) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(cost.runtime)
    for title in ("runs after s", "well after s", "resident MiB"):
        table.add_column(title, justify="right")
    for name, host in sorted(cost.hosts.items(), key=lambda each: each[1].well_s or cost.up_s):
        resident = f"{host.resident_bytes / 2**20:.0f}" if host.resident_bytes else ""
        table.add_row(name, *(f"{at:.2f}" if at is not None else "" for at in (host.running_s, host.well_s)), resident)
    Console().print(table)
    seconds, size = LIMITS[cost.runtime]
    down = "" if cost.down_s is None else f", gone after {cost.down_s:.1f} s"
    print(
        f"{len(cost.hosts)} hosts healthy after {cost.up_s:.1f} s (limit {seconds:.0f}), "
        f"{cost.resident / 2**20:.0f} MiB (limit {size >> 20}){down}"
    )


if __name__ == "__main__":
    sys.exit(main())
