"""Tests for the record changes of the scenario `ttl`."""

import math
from typing import Any

import pytest

from experiments import parameters
from experiments.result import Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from scenarios import ttl
from scenarios.ttl import Ttl


class Servers:
    """A primary that increases its serial number, and a secondary that receives each change after *lag* requests."""

    def __init__(self, lag: int) -> None:
        self.lag, self.serial, self.asked = lag, 7, 0
        self.changed: list[str] = []

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        if method == "PUT":
            self.changed.append(host)
            self.serial, self.asked = self.serial + 1, 0
            return {"serial": self.serial}
        self.asked += host == "ns2"
        behind = host == "ns2" and self.asked <= self.lag
        return [{"zone": "example.com.", "serial": self.serial - behind, "published": 100.0 + (host == "ns2") / 4}]


@pytest.mark.parametrize("lag", [0, 3])
async def test_a_change_is_made_at_the_primary_and_awaited_at_the_secondary(lag: int, tmp_path) -> None:
    experiment, servers = Ttl(parameters.bind(Ttl.settings, quick=True)), Servers(lag)
    run = Run(servers, Result("ttl", "", {}), UndoLog(tmp_path))
    await experiment._arrival(run, await experiment._publish(run, "*.move", 4.0, ttl.NEW))
    assert servers.changed == ["ns1"]
    assert servers.asked == lag + 1
    assert experiment.arrivals == [0.25]


async def test_a_secondary_that_does_not_follow_makes_the_run_invalid(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ttl, "ARRIVES", 0.1)
    experiment, run = (
        Ttl(parameters.bind(Ttl.settings, quick=True)),
        Run(Servers(9), Result("", "", {}), UndoLog(tmp_path)),
    )
    await experiment._arrival(run, await experiment._publish(run, "*.move", 4.0, ttl.NEW))
    assert experiment.arrivals == [math.inf]
