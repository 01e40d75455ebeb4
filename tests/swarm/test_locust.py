"""Tests for the locustfile in a real Locust process, headless and with the web page, against a real TLS server."""

import asyncio
import contextlib
import json
import socket
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dnslib
import pytest

from generator import Schedule, Tally, Target, constant
from stub import Stub
from swarm.arrivals import schedule_seed
from swarm.caller import Caller, Query
from tests.generator.conftest import Site
from tests.peers import NAME, OK, Papers, read_request, replying

ROOT = Path(__file__).parents[2]


class OneName(asyncio.DatagramProtocol):
    """A name server that resolves `NAME` to 127.0.0.1 and replies NXDOMAIN for all other names."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = dnslib.DNSRecord.parse(data).reply()
        if str(reply.q.qname) == NAME + ".":
            reply.add_answer(dnslib.RR(NAME, rdata=dnslib.A("127.0.0.1"), ttl=30))
        else:
            reply.header.rcode = 3
        self.transport.sendto(bytes(reply.pack()), addr)


@pytest.fixture
async def resolver() -> AsyncIterator[tuple[str, int]]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(OneName, ("127.0.0.1", 0))
    yield transport.get_extra_info("sockname")
    transport.close()
    await asyncio.sleep(0)  # the transport is closed in the event loop's next iteration


@contextlib.asynccontextmanager
async def locust(target: Target, resolver: tuple[str, int], *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Locust with the locustfile and yield the process; kill it at the end if it is still running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"),
        "--host", f"https://{NAME}:{target.port}", "--resolver", f"{resolver[0]}:{resolver[1]}",
        "--trust", str(target.trust),
        "--names", f"{NAME} nowhere.example.com", "--paths", "/a /b", *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_every_class_of_user_reports_its_phases(site: Site, resolver: tuple[str, int], tmp_path: Path) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    file = tmp_path / "tally.json"
    load = ("--headless", "-u", "10", "-r", "100", "-t", "8s", "--json", "--tally", str(file))
    async with locust(target, resolver, *load) as process:
        out, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    entries = {(entry["method"], entry["name"]): entry for entry in json.loads(out)}
    assert {key: entry["num_failures"] for key, entry in entries.items() if entry["num_failures"]} == {}
    kept = Tally.from_json(json.loads(file.read_text()))
    fresh = sum(
        entry["num_requests"] for (method, name), entry in entries.items() if (method, name[-7:]) == ("GET", "(fresh)")
    )
    assert kept.ok["fresh"] == len(kept.times["fresh", "latency"]) == fresh > 0
    phases = {"dns", "connect", "tls", "first byte", "receive"}
    for kind in ("fresh", "pooled", "resumed"):
        for path in ("/a", "/b"):
            asked = entries["GET", f"{path} ({kind})"]["num_requests"]
            assert asked > 0
            assert entries["first byte", f"{path} ({kind})"]["num_requests"] == asked
            if kind != "pooled":
                assert {m for m, n in entries if n == f"{path} ({kind})"} == {"GET", *phases}
    opened = sum(entry["num_requests"] for (m, n), entry in entries.items() if m == "tls" and "pooled" in n)
    assert opened <= 2 * 2  # two users; each opens one connection, and a second one if the first was closed while idle
    assert {n for m, n in entries if m == "DNS"} == {f"{NAME} NOERROR", "nowhere.example.com NXDOMAIN"}
    assert {m for m, n in entries if n == f"{NAME}:{target.port}"} == {"TCP", "dns", "connect"}


@pytest.mark.parametrize(
    ("thresholds", "code", "outcomes"),
    [
        ("p50>60s, errors>0%, requests<10", 0, [[], [], []]),
        ("p50>60s, pooled first byte p50>0.001ms, tcp p50>1s", 1, [[], ["failure"], ["error"]]),
    ],
    ids=["kept", "broken"],
)
async def test_thresholds_decide_the_exit_code_and_are_kept_as_junit(
    site: Site, resolver: tuple[str, int], tmp_path: Path, thresholds: str, code: int, outcomes: list[list[str]]
) -> None:
    enough, seen = asyncio.Event(), 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while True:
            await read_request(reader)
            writer.write(OK)
            seen += 1
            if seen > 20:  # at most one request per user is in flight, so at least 18 are complete
                enough.set()

    target = await site.serve(script, site.papers.server())
    file = tmp_path / "load.xml"
    options = ["--headless", "-u", "2", "-r", "100", "--fail-if", thresholds, "--junit", str(file)]
    async with locust(target, resolver, *options, "PooledUser") as process:
        ending = asyncio.create_task(process.communicate())
        async with asyncio.timeout(90):
            await enough.wait()
        process.terminate()
        _, log = await ending
    assert process.returncode == code, log.decode()
    cases = ET.fromstring(file.read_text()).iter("testcase")  # noqa: S314 - a file that the test made
    assert [[each.tag for each in case] for case in cases] == outcomes


async def test_a_threshold_that_is_none_is_a_usage_error(site: Site, resolver: tuple[str, int]) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    async with locust(target, resolver, "--headless", "--fail-if", "p99>80") as process:
        _, log = await process.communicate()
    assert process.returncode == 2
    assert "expected the unit us or ms or s for p99, got '' in 'p99>80'" in log.decode()


def ask(port: int, path: str, form: dict[str, Any] | None = None) -> str:
    data = None if form is None else urllib.parse.urlencode(form, doseq=True).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as response:
        return response.read().decode()


async def until(port: int, path: str, wanted: Any, seconds: float = 90.0) -> Any:
    """Poll *path* on *port* until the predicate *wanted* accepts the response; return the response.

    Raises:
        TimeoutError: *wanted* accepted no response within *seconds*.
    """
    seen: Any = None
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(OSError):
                seen = json.loads(await asyncio.to_thread(ask, port, path))
                if wanted(seen):
                    return seen
            await asyncio.sleep(0.2)  # polling interval; Locust is another process and cannot notify the test


async def test_the_web_page_picks_classes_and_shapes_and_shows_our_tables(
    site: Site, resolver: tuple[str, int]
) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with locust(target, resolver, "--web-port", str(port), "--web-host", "127.0.0.1", "--class-picker"):
        await until(port, "/stats/requests", lambda _: True)
        index = await asyncio.to_thread(ask, port, "/")
        for word in (
            "FreshUser",
            "ResumedUser",
            "DnsUser",
            "Ramp",
            "Step",
            "Spike",
            "extended_tabs",
            "/firstbyte",
            "arrival_rate",
        ):
            assert word in index
        form = {
            "user_count": 4,
            "spawn_rate": 100,
            "user_classes": ["FreshUser"],
            "shape_class": "Default",
            "arrival_rate": 10,
        }
        answer = json.loads(await asyncio.to_thread(ask, port, "/swarm", form))
        assert answer["success"], answer
        names = {"/a (fresh)", "/b (fresh)"}
        stats = await until(
            port,
            "/stats/requests",
            lambda s: (
                any(e["key"] == "phases" and e["data"] for e in s["extended_stats"])
                and names <= {entry["name"] for entry in s["stats"]}
            ),
        )
        assert {entry["name"] for entry in stats["stats"]} == {*names, "Aggregated"}
        data = await until(port, "/firstbyte/data", lambda d: d["ok"] > 0 and d["kernel"][0]["tcp_activeopens"] > 0)
        assert [row["phase"] for row in data["phases"]] == ["latency", "dns", "connect", "tls", "first byte", "receive"]
        assert data["generator"][0]["verdict"]
        assert "kernel counters" in await asyncio.to_thread(ask, port, "/firstbyte")


async def test_a_shape_and_an_open_loop_work_without_the_page(
    site: Site, resolver: tuple[str, int], tmp_path: Path
) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    more = (
        "--headless",
        "--shape",
        "step",
        "-u",
        "8",
        "-t",
        "12s",
        "--arrival-rate",
        "5",
        "--csv",
        str(tmp_path / "run"),
    )
    async with locust(target, resolver, *more, "--csv-full-history", "PooledUser") as process:
        _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    rows = [line.split(",") for line in (tmp_path / "run_stats_history.csv").read_text().splitlines()[1:]]
    users = [int(row[1]) for row in rows if row[3] == "Aggregated"]
    assert users == sorted(users)
    assert users[0] < 8
    assert 6 <= users[-1] <= 8


async def test_a_chain_to_another_root_is_lost_in_tls(site: Site, resolver: tuple[str, int], tmp_path: Path) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    other = Target(NAME, target.port, "/", Papers(tmp_path).trust)
    caller = Caller(other, "fresh", other.context(), Stub([resolver]))
    request = await asyncio.to_thread(caller.get, "/")
    assert request.failed_in == "tls"
    assert request.error.startswith("certificate: ")


async def test_a_closed_port_is_lost_in_connect(resolver: tuple[str, int]) -> None:
    caller = Caller(Target(NAME, 1, "/", None, "http"), "fresh", None, Stub([resolver]))
    request = await asyncio.to_thread(caller.get, "/")
    assert (request.error, request.failed_in) == ("connect: ECONNREFUSED", "connect")


async def test_a_name_that_does_not_exist_is_a_loss_for_a_caller_and_an_answer_for_a_query(
    resolver: tuple[str, int],
) -> None:
    caller = Caller(Target("nowhere.example.com", 1, "/", None, "http"), "fresh", None, Stub([resolver]))
    request = await asyncio.to_thread(caller.get, "/")
    assert (request.error, request.failed_in) == ("name: NoSuchName", "dns")
    request, rcode = await asyncio.to_thread(Query([resolver]).ask, "nowhere.example.com")
    assert (request.error, rcode) == ("", "NXDOMAIN")


@pytest.mark.system  # Locust takes ten seconds to detect a missing heartbeat
async def test_histograms_of_three_workers_add_up_exactly(
    site: Site, resolver: tuple[str, int], tmp_path: Path
) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    host = "127.0.0.1"
    load = ["-u", "3", "-r", "100", "-t", "2s", "--arrival-rate", "40", "--arrival-seed", "7", "PooledUser"]
    master = ["--master", "--master-bind-host", host, "--master-bind-port", port, "--expect-workers", "3", "--headless"]
    roles = {"master": master + load}
    for number in range(3):
        roles[f"worker{number}"] = ["--worker", "--master-host", host, "--master-port", port]
    async with contextlib.AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(locust(target, resolver, *words, "--tally", str(tmp_path / name)))
            for name, words in roles.items()
        ]
        async with asyncio.timeout(90):
            logs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0, 0], logs
    merged, *parts = (Tally.from_json(json.loads((tmp_path / name).read_text())) for name in roles)
    total = Tally()
    for part in parts:
        assert part.ok["pooled"] > 0
        total.merge(part)
    assert total.as_json() == merged.as_json()


async def test_a_killed_worker_is_noticed_and_the_run_goes_on(site: Site, resolver: tuple[str, int]) -> None:
    target = await site.serve(replying(OK), site.papers.server())
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        bus, web = one.getsockname()[1], two.getsockname()[1]
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(bus), "--web-host", "127.0.0.1")
    worker = ("--worker", "--master-host", "127.0.0.1", "--master-port", str(bus))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(locust(target, resolver, *master, "--web-port", str(web)))
        workers = [await stack.enter_async_context(locust(target, resolver, *worker)) for _ in range(2)]
        await until(web, "/stats/requests", lambda s: s.get("worker_count") == 2)
        await asyncio.to_thread(ask, web, "/swarm", {"user_count": 6, "spawn_rate": 100})
        seen = await until(web, "/firstbyte/data", lambda d: len(d["generator"]) == 2 and d["ok"] > 0)
        workers[0].kill()
        seen = await until(web, "/firstbyte/data", lambda d: len(d["gone"]) == 1)
        assert len(seen["generator"]) == 1
        later = await until(web, "/firstbyte/data", lambda d: d["ok"] > seen["ok"] + 20)
        assert later["lost"] == 0
        state = json.loads(await asyncio.to_thread(ask, web, "/stats/requests"))
        assert (state["state"], sorted(each["state"] for each in state["workers"])) == (
            "running",
            ["missing", "running"],
        )


def test_schedules_repeat_with_a_seed_and_differ_between_users_and_workers() -> None:
    def schedule(seed: int, worker: int, user: int) -> list[float]:
        times = Schedule(constant(50.0, 2.0), "exponential", schedule_seed(seed, worker, user)).times()
        return list(times)

    assert schedule(7, 0, 0) == schedule(7, 0, 0)
    assert len({tuple(schedule(7, worker, user)) for worker in range(3) for user in range(3)}) == 9
    assert schedule(0, 0, 0) != schedule(0, 0, 0)
