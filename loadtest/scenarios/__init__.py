"""Scenarios: one file each, a claim of the seed made falsifiable (SCENARIOS in the design).

Each is an `experiments.Experiment`; ``firstbyte run NAME`` conducts it.
"""

from typing import Any

from experiments import Experiment
from scenarios.handshake import Handshake
from scenarios.time_wait import TimeWait

#: In the order in which they are best read.
SCENARIOS: tuple[type[Experiment[Any]], ...] = (Handshake, TimeWait)

__all__ = ["SCENARIOS", "Handshake", "TimeWait"]
