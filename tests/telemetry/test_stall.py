"""Tests for the fault `stall`, which stops a whole process for a while."""

import asyncio
import time
from itertools import pairwise

from telemetry import Telemetry, stall
from tests.waiting import until


async def test_a_stall_stops_the_event_loop_once_for_as_long_as_requested() -> None:
    telemetry = Telemetry("example")
    stall.declare(telemetry)
    turns = [time.monotonic()]

    async def turn() -> None:
        while True:
            await asyncio.sleep(0.005)  # interval between two ticks of the event loop
            turns.append(time.monotonic())

    turning = asyncio.create_task(turn())
    telemetry.faults.switch_on("stall", {"ms": 300.0})
    telemetry.faults.declare("other", "Changes while the stall is pending")
    telemetry.faults.switch_on("other", {})
    await until(lambda: not telemetry.faults.as_dict()["stall"]["on"])
    turning.cancel()
    assert max(b - a for a, b in pairwise([*turns, time.monotonic()])) >= 0.3
    assert telemetry.faults.as_dict()["stall"]["hits"] == 1
