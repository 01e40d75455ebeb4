"""Tests for the record changes of the scenario `ttl`."""

import time
from typing import Any

import pytest

from experiments import parameters
from experiments.result import Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from scenarios.ttl import Ttl

#: Seconds until a request arrives at each server: one and a half round trips.
ARRIVES = {"ns1": 0.03, "ns2": 0.18}


class Servers:
    """Name servers that record the time at which a change arrives."""

    def __init__(self) -> None:
        self.changed: dict[str, float] = {}

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        time.sleep(ARRIVES[host])  # simulate the network delay
        self.changed[host] = time.monotonic()


@pytest.mark.parametrize("owner", ["*.move", "*.ttl-4"])
async def test_a_change_takes_effect_at_both_servers_at_the_same_moment(owner: str, tmp_path) -> None:
    experiment = Ttl(parameters.bind(Ttl.settings, quick=True))
    apart = []
    for _ in range(5):
        servers = Servers()
        run = Run(servers, Result("ttl", "", {}), UndoLog(tmp_path))
        await experiment._switch(run, owner, 4.0)
        apart.append(abs(servers.changed["ns1"] - servers.changed["ns2"]))
    assert min(apart) < 0.05  # a busy machine can only add time, so the shortest difference counts
