"""What the kernel says about this process and its network namespace (/proc/self, /proc/net)."""

import os
import time
from pathlib import Path

from telemetry.metrics import Metrics

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident set of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def tcp_sockets() -> dict[str, int]:
    """Return this namespace's TCP sockets: ``inuse`` (established and others) and ``tw`` (TIME_WAIT).

    `orphan`, `alloc` and `mem` of the same line count the whole machine and are left out.
    """
    for line in Path("/proc/net/sockstat").read_text(encoding="ascii").splitlines():
        if line.startswith("TCP:"):
            words = line.split()[1:]
            values = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            return {"inuse": values["inuse"], "tw": values["tw"]}
    return {}


def export(metrics: Metrics) -> None:
    """Add process and socket gauges that are read at each scrape."""
    rss = metrics.gauge("process_resident_memory_bytes", "Resident memory of this process")
    cpu = metrics.gauge("process_cpu_seconds_total", "CPU time of this process, user and system")
    sockets = metrics.gauge("firstbyte_sockets", "TCP sockets of this host by state, from /proc/net/sockstat", "state")

    def refresh() -> None:
        rss.set(resident_bytes())
        cpu.set(time.process_time())
        for state, count in tcp_sockets().items():
            sockets.set(count, state=state)

    metrics.before_render(refresh)
