"""Tests for a drill's own certificates: http-01 responses over a real socket, and records at the primary server."""

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from drills import enrolment
from drills.enrolment import Enrolment, publish
from experiments import Result, Run
from experiments.undo_log import UndoLog
from tests.experiments.lab import MemoryLab
from tests.peers import Papers, papers

__all__ = ["papers"]


async def test_challenges_are_answered_while_an_order_is_pending(papers: Papers) -> None:
    mine = Enrolment(trust=papers.trust)
    mine.challenges.put("token", "token.thumbprint")
    async with mine.responding("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/.well-known/acme-challenge/"
        assert await asyncio.to_thread(get, url + "token") == b"token.thumbprint"
        with pytest.raises(OSError, match="404"):
            await asyncio.to_thread(get, url + "other")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        body: bytes = response.read()
        return body


class NameServers(MemoryLab):
    """A primary name server, and a secondary that receives each change after *polls* requests for its list of zones."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.serial, self.records, self.polls = 7, dict[str, Any](), polls

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        if method == "PUT" and path == "/admin/zones/example.com./records":
            self.serial += 1
            self.records[body["name"]] = body["rdata"]
            return {"serial": self.serial}
        if (method, path) == ("GET", "/admin/zones"):
            self.polls -= 1
            return [{"zone": "example.com.", "serial": self.serial - (self.polls >= 0)}]
        return super().call(host, method, path, body, timeout=timeout)


async def test_a_record_is_published_when_the_secondary_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "POLL", 0.0)
    lab = NameServers(polls=3)
    run = Run(lab, Result("mine", "", {}), UndoLog(tmp_path))
    undo = await publish(run, "partner", rdata=["192.0.2.7"])
    assert lab.records == {"partner": ["192.0.2.7"]}
    assert lab.polls == -1
    assert undo.path == "/admin/zones/example.com./records?name=partner&type=A"
    assert run.lab.undo_log.undos == [undo]
