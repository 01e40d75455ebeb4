"""The fault `stall`: the whole process of a service stops once, as in a long garbage collection or a paused VM.

Neither requests nor connections nor the admin port are served meanwhile; the kernel continues to accept connections
into the listen queue and data into receive buffers.
"""

import asyncio
import time

from telemetry.service import Telemetry

#: Maximum duration of a stall in milliseconds: after it, the service must still be alive for its health check.
MAX_MS = 15_000.0
#: Seconds until the stall begins, so that the response to the admin request is sent first.
AHEAD = 0.05


def declare(telemetry: Telemetry) -> None:
    """Declare the fault `stall` for the service of *telemetry*, whose event loop is the running one."""
    telemetry.faults.declare(
        "stall", "Stop the whole process once, for this many milliseconds (at most 15,000)", ms=1000.0, count=1
    )
    pending: list[asyncio.TimerHandle] = []

    def stop() -> None:
        pending.clear()
        if found := telemetry.faults.hit("stall"):
            time.sleep(min(found["ms"], MAX_MS) / 1000)  # the fault itself: it blocks the event loop on purpose

    def changed() -> None:
        if telemetry.faults.get("stall") and not pending:
            pending.append(asyncio.get_running_loop().call_later(AHEAD, stop))

    telemetry.faults.on_change(changed)
