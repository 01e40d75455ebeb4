"""Tests for the database with real crashes, a full disk, locks and full queues."""

import asyncio
import contextlib
import http.client
import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from origin.__main__ import main
from origin.database import MAX_WAITING, BrokenError, Database
from origin.operating import prepare
from tests.origin.conftest import Client, opened, talking
from tests.origin.processes import running
from tests.waiting import until

TEA = {"name": "Tea", "text": "x" * 2000}
JSON = {"Content-Type": "application/json"}


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with running(tmp_path, "first") as origin:

        def write(worker: int) -> None:
            link = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(link):
                for number in range(10_000):
                    link.request("PUT", f"/items/w{worker}-{number}", json.dumps(TEA), JSON)
                    if link.getresponse().read():
                        acknowledged.append(f"w{worker}-{number}")

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 50:
            assert threads[0].is_alive()
        origin.process.kill()
        for thread in threads:
            thread.join()
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert set(acknowledged) <= {row[0] for row in db.execute("SELECT id FROM item")}


async def test_a_full_database_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    async with talking(tmp_path / "small.sqlite", max_bytes=20 * 4096) as ask:
        await _fill_and_recover(ask)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the mount point of a 512 KiB tmpfs; skip the test if the user is not permitted to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_refuses_writes_and_serves_reads(disk: Path) -> None:
    async with talking(disk / "catalog.sqlite") as ask:
        room = os.statvfs(disk)
        (disk / "other").write_bytes(b"x" * (room.f_bavail * room.f_frsize - 64 * 1024))
        written = 0
        while (answer := await ask("PUT", f"/items/a{written}", TEA)).status == 201:
            written += 1
        assert written > 0
        assert (answer.status, answer.fields["retry-after"]) == (507, "60")
        assert (await ask("GET", "/items/syn")).status == 200
        (disk / "other").unlink()
        assert (await ask("PUT", "/items/after", TEA)).status == 201
        assert (await ask("GET", f"/items/a{written}")).status == 404, "nothing half-written"
        assert [(await ask("GET", f"/items/a{number}")).status for number in range(written)] == [200] * written


async def _fill_and_recover(ask: Client) -> None:
    written = 0
    while (answer := await ask("PUT", f"/items/a{written}", TEA, idempotency_key=f"k{written}")).status == 201:
        written += 1
    assert written > 3
    assert (answer.status, answer.fields["retry-after"]) == (507, "60")
    assert answer.json["detail"].startswith("the database is full")
    assert (await ask("GET", f"/items/a{written}")).status == 404, "nothing half-written"
    assert (await ask("GET", "/items/a0")).status == 200
    rows = await ask.database.read(lambda db: db.execute("SELECT count(*) FROM reply").fetchone()[0])
    assert rows == written, "no stored response of a write that did not happen"
    assert (await ask("DELETE", "/items/a0")).status == 204
    assert (await ask("DELETE", "/items/a1")).status == 204
    assert (await ask("PUT", "/items/b", TEA)).status == 201


async def test_a_lock_of_another_process_makes_writes_wait_then_503_and_delays_no_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    async with talking(path, lock_timeout=0.1) as ask:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await ask("PUT", "/items/a", TEA)
            assert (answer.status, answer.fields["retry-after"]) == (503, "1")
            assert (await ask("GET", "/items/syn")).status == 200
            other.execute("ROLLBACK")
        assert (await ask("PUT", "/items/a", TEA)).status == 201


async def test_a_full_queue_is_503_and_the_others_are_served(tmp_path: Path) -> None:
    async with opened(tmp_path / "catalog.sqlite") as (port, notes):
        database, gate = notes.database, threading.Event()
        blocked = asyncio.create_task(database.write(lambda _: gate.wait()))
        await until(lambda: database.waiting()["write"] == 1)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as http:
            tasks = [asyncio.create_task(_put(http, number)) for number in range(MAX_WAITING + 9)]
            await until(lambda: sum(task.done() for task in tasks) == 10)
            assert {task.result() for task in tasks if task.done()} == {(503, "1")}
            gate.set()
            await blocked
            assert sorted(await asyncio.gather(*tasks)) == [(201, None)] * (MAX_WAITING - 1) + [(503, "1")] * 10
        assert database.waiting() == {"write": 0, "read": 0}


async def _put(http: aiohttp.ClientSession, number: int) -> tuple[int, str | None]:
    async with http.put(f"/items/q{number}", json=TEA) as response:
        return response.status, response.headers.get("Retry-After")


async def test_a_caller_that_leaves_keeps_no_place_in_the_queue(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite")
    await database.open(prepare)
    gate = threading.Event()
    blocked = asyncio.create_task(database.write(lambda _: gate.wait()))
    leaving = asyncio.create_task(database.write(lambda db: db.execute("DELETE FROM item").rowcount))
    await until(lambda: database.waiting()["write"] == 2)
    leaving.cancel()
    gate.set()
    await blocked
    await until(lambda: database.waiting()["write"] == 0)
    await database.close()


async def test_an_error_in_a_transaction_changes_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite")
    await database.open(prepare)

    def half(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM item")
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(half)
    assert await database.read(lambda db: db.execute("SELECT count(*) FROM item").fetchone()[0]) == 6
    await database.close()


async def test_a_broken_database_is_reported_until_it_works_again(tmp_path: Path) -> None:
    said: list[str] = []
    database = Database(tmp_path / "a.sqlite")
    await database.open(prepare)
    database.on_health = said.append
    for _ in range(2):
        with pytest.raises(BrokenError):
            await database.read(lambda db: db.execute("SELECT * FROM lost"))
    await database.read(lambda db: db.execute("SELECT 1").fetchone())
    assert said == ["OperationalError: no such table: lost", ""]
    await database.close()


async def test_processes_that_start_together_share_a_new_file(tmp_path: Path) -> None:
    databases = [Database(tmp_path / "a.sqlite") for _ in range(4)]
    await asyncio.gather(*(each.open(prepare) for each in databases))
    for each in databases:
        assert await each.read(lambda db: db.execute("SELECT count(*) FROM item").fetchone()[0]) == 6
    await asyncio.gather(*(each.close() for each in databases))


@pytest.mark.parametrize("content", [None, b"no database" * 100], ids=["no-folder", "no-database"])
def test_a_file_that_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "none" / "a.sqlite" if content is None else tmp_path / "a.sqlite"
    if content is not None:
        path.write_bytes(content)
    arguments = [
        "--name",
        "a",
        "--kind",
        "catalog",
        "--plain",
        "127.0.0.1:0",
        "--database",
        str(path),
        "--note-keys",
        str(tmp_path / "keys.json"),
    ]
    assert main(arguments) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"origin: error: {path}: expected a database that can be written")
    assert err.count("\n") == 1
