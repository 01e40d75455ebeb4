"""The fault `stall`: a service's whole process stops once, as during a long garbage collection or a VM pause.

During the stall, the process serves neither requests nor new connections nor the admin port; the kernel continues to
place connections in the accept queue and data in receive buffers.
"""

import asyncio
import time

from telemetry.service import Telemetry

#: Maximum duration of a stall in milliseconds, short enough that the service's health check does not fail.
MAX_MS = 15_000.0
#: Delay before the stall begins, in seconds, so that the response to the admin request is sent first.
AHEAD = 0.05


def declare(telemetry: Telemetry) -> None:
    """Declare the fault `stall` for the service of *telemetry*, which must run in the current event loop."""
    telemetry.faults.declare(
        "stall", "Stop the whole process once, for this many milliseconds (at most 15,000)", ms=1000.0, count=1
    )
    pending: list[asyncio.TimerHandle] = []

    def stop() -> None:
        pending.clear()
        if found := telemetry.faults.hit("stall"):
            time.sleep(min(found["ms"], MAX_MS) / 1000)  # inject the fault by blocking the event loop

    def changed() -> None:
        if telemetry.faults.get("stall") and not pending:
            pending.append(asyncio.get_running_loop().call_later(AHEAD, stop))

    telemetry.faults.on_change(changed)
