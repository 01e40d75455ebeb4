"""What the whole lab costs on this engine: seconds until every host is healthy, resident memory of each.

    python bench/lab_footprint.py [--json]

Starts the lab anew (volumes stay), so nothing else may be using it.  Limits: 40 s and 900 MiB, stretch 30 s and 700 MiB.
"""

import argparse
import json
import sys
import time

from rich.console import Console
from rich.table import Table

from runtime import DockerLab, LabError, Topology, find_project

SECONDS_LIMIT, BYTES_LIMIT = 40.0, 900 << 20


def main(argv: list[str] | None = None) -> int:
    """Measure once; exit 1 when a limit is broken, 3 without an engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        with DockerLab(Topology.load(find_project())) as lab:
            lab.up()  # builds what is missing, which is not what we time
            lab.down(volumes=False)
            began = time.monotonic()
            lab.up(build=False)
            took = time.monotonic() - began
            hosts = {host.name: host.memory or 0 for host in lab.status(memory=True) if host.state == "running"}
    except LabError as error:
        print(f"lab_footprint: error: {error}", file=sys.stderr)
        return error.exit_code
    total = sum(hosts.values())
    kept = took <= SECONDS_LIMIT and total <= BYTES_LIMIT
    if args.json:
        print(json.dumps({"up_s": round(took, 2), "resident_bytes": total, "hosts": hosts, "ok": kept}, indent=2))
        return 0 if kept else 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("host")
    table.add_column("resident MiB", justify="right")
    for name, resident in sorted(hosts.items(), key=lambda each: -each[1]):
        table.add_row(name, f"{resident / 2**20:.0f}")
    Console().print(table)
    print(f"{len(hosts)} hosts healthy in {took:.1f} s (limit {SECONDS_LIMIT:.0f}), {total / 2**20:.0f} MiB resident (limit {BYTES_LIMIT >> 20})")  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
