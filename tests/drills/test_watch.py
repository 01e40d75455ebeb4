"""Tests for the monitoring of hosts during drills, and for shortening and restoring lifetimes (in-memory lab)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from drills.lifetimes import Scale, shorten
from drills.watch import Watch
from experiments import Result, Run
from experiments.undo_log import UndoLog


class Hosts:
    """In-memory hosts with certificates, which reply to admin requests and record all requests except polls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.serials: dict[str, int] = {}
        self.alarms: list[str] = []
        self.due = 8.0
        self.issuer = self.bundle = 1

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        if (method, path) != ("GET", "/admin/certificate"):
            self.asked.append((host, method, path))
        if path == "/admin/renew":
            self.serials[host] = self.serials.get(host, 0) + 1
        number = self.serials.get(host, 0)
        issued = 10.0 * number
        return {
            "serial": f"{number:x}",
            "issuer": f"CN=issuing CA {self.issuer}",
            "trust_bundle": self.bundle,
            "issued": issued,
            "not_after": issued + 12,
            "due": issued + self.due,
            "failures": 0,
            "alarms": self.alarms,
        }


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def run(hosts: Hosts, tmp_path: Path) -> Run:
    return Run(hosts, Result("test", "", {}), UndoLog(tmp_path))


async def test_each_certificate_is_remembered_once_with_its_latest_due_time(run: Run, hosts: Hosts) -> None:
    watch = Watch(run, ["edge"])
    await watch.look("edge")
    hosts.due = 6.0  # renewal information has moved the renewal forward
    await watch.look("edge")
    hosts.serials["edge"] = 1
    await watch.look("edge")
    assert [(h.serial, h.due) for h in watch.of("edge")] == [("0", 6.0), ("1", 16.0)]
    assert watch.renewed_at("edge") == [0.5]
    assert watch.late_by("edge") == [4.0]


async def test_changes_of_issuer_and_trust_bundle_are_remembered(run: Run, hosts: Hosts) -> None:
    watch = Watch(run, ["edge"])
    for hosts.issuer, hosts.bundle in ((1, 1), (1, 2), (1, 2), (2, 2), (2, 3)):
        await watch.look("edge")
    found = [(each.issuer[-1], each.bundle) for each in watch.identities["edge"]]
    assert found == [("1", 1), ("1", 2), ("2", 2), ("2", 3)]


async def test_an_alarm_that_comes_back_is_a_new_alarm(run: Run, hosts: Hosts) -> None:
    watch = Watch(run, ["edge"])
    for said in ([], ["renewal: 2 failures"], ["renewal: 3 failures"], [], ["renewal: 2 failures"]):
        hosts.alarms = said
        await watch.look("edge")
    assert [a.text for a in watch.alarms] == ["renewal: 2 failures"] * 2
    first = watch.first_alarm(0.0)
    assert first is not None
    assert watch.first_alarm(first.at + 1e-9) == watch.alarms[1]
    assert watch.first_alarm(0.0, "news") is None
    assert first.at < first.until <= watch.alarms[1].at
    assert watch.active("edge") == {"renewal": watch.alarms[1]}
    assert [e.kind for e in run.timeline.events].count("alarm") == 2


async def test_waiting_for_a_renewal_ends_with_it_or_times_out(run: Run, hosts: Hosts) -> None:
    watch = Watch(run, ["edge"])
    waiting = asyncio.create_task(watch.until_renewed("edge", "0", 5.0))
    await asyncio.sleep(0.05)  # time for at least one poll before the renewal
    hosts.serials["edge"] = 1
    assert await waiting <= run.now()
    with pytest.raises(TimeoutError):
        await watch.until_renewed("edge", "1", 0.05)


async def test_lifetimes_are_restored_before_certificates_are_renewed(run: Run, hosts: Hosts) -> None:
    await shorten(run, ["edge", "news"], Scale(12.0))
    hosts.asked.clear()
    assert await run.lab.undo_all() == []
    restored = [(host, method, path) for host, method, path in hosts.asked]
    lifetime, renewals = (
        ("ca", "DELETE", "/admin/lifetime"),
        [("news", "POST", "/admin/renew"), ("edge", "POST", "/admin/renew")],
    )
    assert restored[-3:] == [lifetime, *renewals]
    assert {path for _, _, path in restored[:-3]} == {"/admin/schedule"}
