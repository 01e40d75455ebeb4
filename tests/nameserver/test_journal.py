"""Tests for journals: restart, truncated and damaged files, a full disk, kill -9, and edits of the master file."""

import asyncio
import itertools
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dns.exception
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest

from dnsmessage import Name
from nameserver import Zone, access, changes, journal, parse
from nameserver.__main__ import main
from nameserver.access import Access
from nameserver.journal import Journal, JournalError
from nameserver.server import Server
from nameserver.store import Store
from telemetry import AdminError, Request, Telemetry
from tests.nameserver.daemons import KEY, SECRET, free_port
from tests.nameserver.test_transfer import KEYS, text

APEX = Name.from_text("example.")
W = Name.from_text("w.example.")
RING = dns.tsigkeyring.from_text({"transfer": ("hmac-sha256", SECRET)})


def zone(serial: int, extra: str = "") -> Zone:
    return parse("example.", text(serial, extra))


def written(folder: Path) -> tuple[Path, list[int]]:
    """Write a journal with some changes; return its path and its size after each change."""
    store, old, sizes = Store(folder), zone(1), list[int]()
    store.restore(old)
    for serial in range(2, 5):
        new = zone(serial, f"w A 192.0.2.{serial}\n")
        store.record(old, old.diff(new))
        old = new
        sizes.append((folder / "example.journal").stat().st_size)
    store.close()
    return folder / "example.journal", sizes


def restored(folder: Path, file: Zone | None = None) -> Zone:
    store = Store(folder)
    try:
        return store.restore(file or zone(1))
    finally:
        store.close()


def test_a_restart_serves_the_changes_and_knows_their_history(tmp_path: Path) -> None:
    written(tmp_path)
    store = Store(tmp_path)
    assert (found := store.restore(zone(1))).serial == 4
    assert Journal(tmp_path, Name.from_text("EXAMPLE.")).path.exists()
    assert found.rrsets == zone(4, "w A 192.0.2.4\n").rrsets
    assert [change.new for change in store.histories[APEX].since(1) or ()] == [2, 3, 4]
    store.close()


def test_a_torn_end_is_cut_off_wherever_it_was_torn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, sizes = written(tmp_path)
    whole = path.read_bytes()
    for size in (*range(sizes[1] + 1, sizes[2], 3), sizes[2] - 1):
        path.write_bytes(whole[:size])
        assert restored(tmp_path).serial == 3
        assert path.stat().st_size == sizes[1]
    assert caplog.records[-2].message == "journal_cut"


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    path, sizes = written(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        if at >= sizes[1]:
            assert restored(tmp_path).serial == 3
        else:
            with suppress(JournalError):
                assert restored(tmp_path).serial < 4


def test_a_master_file_with_a_newer_serial_wins_and_the_history_goes_on(tmp_path: Path) -> None:
    written(tmp_path)
    store = Store(tmp_path)
    assert store.restore(zone(9, "x A 192.0.2.9\n")).serial == 9
    assert [change.new for change in store.histories[APEX].since(1) or ()] == [2, 3, 4, 9]
    store.close()
    assert restored(tmp_path, zone(9, "x A 192.0.2.9\n")).node(W) is None


def test_an_edited_master_file_without_a_newer_serial_is_ignored_and_said_so(tmp_path: Path, caplog) -> None:
    written(tmp_path)
    caplog.set_level(logging.INFO)
    assert restored(tmp_path).serial == 4
    assert "zone_file_ignored" not in caplog.text, "an unchanged file is no reason for a warning"
    assert restored(tmp_path, zone(1, "x A 192.0.2.9\n")).serial == 4
    assert "zone_file_ignored" in caplog.text


def test_a_serial_that_wraps_is_newer(tmp_path: Path) -> None:
    store, old = Store(tmp_path), zone(2**32 - 1)
    store.restore(old)
    new = old.replace(W, 1, 5, [b"\xc0\0\2\1"])
    assert new.serial == 1
    store.record(old, old.diff(new))
    store.close()
    assert restored(tmp_path, old).serial == 1


def test_a_journal_that_has_outgrown_its_zone_is_replaced_and_keeps_the_history(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "SMALL", 2000)
    monkeypatch.setattr(changes, "MAX_HISTORY", 40)
    store, old, sizes = Store(tmp_path), zone(1), list[int]()
    store.restore(old)
    for serial in range(2, 60):
        new = zone(serial, f"w A 192.0.2.{serial}\n")
        store.record(old, old.diff(new))
        store.tidy(new)
        old = new
        sizes.append((tmp_path / "example.journal").stat().st_size)
    store.close()
    assert any(later < sooner for sooner, later in itertools.pairwise(sizes))
    assert max(sizes) < 5000
    store = Store(tmp_path)
    assert store.restore(zone(1)).rrsets == old.rrsets
    assert len(store.histories[APEX].since(50) or ()) == 9
    store.close()


def test_two_processes_cannot_share_a_journal(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    first = Journal(tmp_path, APEX)
    first.open()
    with pytest.raises(JournalError, match="is open in another process"):
        Journal(tmp_path, APEX).open()
    first.close()
    path.write_bytes(b"something else")
    with pytest.raises(JournalError, match="expected a journal"):
        Journal(tmp_path, APEX).open()


def test_an_unusable_journal_stops_the_start_because_changes_would_be_lost(tmp_path: Path, capsys) -> None:
    path, _ = written(tmp_path)
    path.write_bytes(b"something else")
    (tmp_path / "zone").write_text(text(1))
    arguments = ["--listen", "127.0.0.1:0", "--zone", f"example.={tmp_path / 'zone'}", "--state", str(tmp_path)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"nameserver: error: {path}: expected a journal, got other content\n"


@contextmanager
def full_disk(path: Path, room: int) -> Iterator[None]:
    """Simulate a full disk: limit the size of files to that of *path* plus *room* bytes (RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def request(method: str, query: dict[str, str], body: bytes = b"") -> Request:
    return Request(method, "/admin/zones/example./records", query, {"zone": "example."}, {}, body)


@pytest.mark.parametrize("room", [0, 10, 60], ids=["nothing-fits", "half-a-header", "half-a-change"])
async def test_a_full_disk_fails_that_change_and_nothing_else(tmp_path: Path, room: int, caplog) -> None:
    path, _ = written(tmp_path)
    (tmp_path / "zone").write_text(text(1))
    rights = Access(KEYS, (), (access.writer("transfer"),), (), tmp_path)
    server = Server(Telemetry("nameserver"), {"example.": tmp_path / "zone"}, rights)
    message = dns.update.UpdateMessage("example.", keyring=RING)
    message.add("new", 5, "A", "192.0.2.9")
    body = b'{"name":"w","type":"A","rdata":["192.0.2.99"]}'
    with full_disk(path, room):
        reply = await server.handle(message.to_wire(), ("127.0.0.1", 9), "tcp")
        with pytest.raises(AdminError) as error:
            await server.admin._put(request("PUT", {}, body))
    assert reply[3] & 15 == dns.rcode.SERVFAIL
    assert "cannot be written: File too large" in str(error.value)
    assert error.value.status == 503
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == ["update_failed"]
    served = server.zone(APEX)
    assert served is not None
    assert served.serial == 4
    reply = await server.handle(message.to_wire(), ("127.0.0.1", 9), "tcp")
    assert reply[3] & 15 == 0, "with room again, changes are stored again"
    server.store.close()
    assert restored(tmp_path).serial == 5


async def test_a_change_is_stored_and_served_even_if_its_client_goes_away(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text(text(1))
    server = Server(Telemetry("nameserver"), {"example.": tmp_path / "zone"}, Access(state=tmp_path))
    task = asyncio.create_task(server.publish(lambda: zone(2, "w A 192.0.2.7\n")))
    await asyncio.sleep(0)  # let the task begin the change
    task.cancel()
    await asyncio.gather(task, *server._tasks, return_exceptions=True)
    served = server.zone(APEX)
    assert served is not None
    assert served.serial == 2
    server.store.close()
    assert restored(tmp_path).serial == 2


async def test_reloading_an_edited_file_makes_the_serial_grow(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    path.write_text(text(5))
    server = Server(Telemetry("nameserver"), {"example.": path}, Access(state=tmp_path))
    await server.publish(lambda: zone(6, "w A 192.0.2.7\n"))
    await server.reload_all()
    assert server.responder.zones[APEX].serial == 6, "the file is as it was, so SIGHUP leaves the zone alone"
    path.write_text(text(5, "x A 192.0.2.7\n"))
    await server.reload_all()
    assert (server.responder.zones[APEX].serial, server.responder.zones[APEX].node(W)) == (7, None)
    await server.publish(lambda: zone(8, "w A 192.0.2.7\n"))
    await server.reload(APEX)
    assert server.responder.zones[APEX].serial == 9, "an explicit reload takes the file in any case"
    await server.reload(APEX)
    assert server.responder.zones[APEX].serial == 9, "nothing is left to change"
    server.store.close()
    assert restored(tmp_path, zone(5, "x A 192.0.2.7\n")).serial == 9


@contextmanager
def process(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a name server with its journals in *folder*; yield the process once it listens."""
    command = [sys.executable, "-m", "nameserver", "--listen", f"127.0.0.1:{port}", "--tsig-key", str(folder / "key")]
    command += ["--zone", f"example.={folder / 'zone'}", "--state", str(folder), "--update-policy", "transfer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("listening")
            yield running
        finally:
            running.kill()


async def test_kill_in_the_middle_of_updates_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text(text(1))
    (tmp_path / "key").write_text(KEY)
    port, acknowledged = free_port(), list[str]()

    def send_until_killed(round_: int) -> None:
        for number in range(10_000):
            message = dns.update.UpdateMessage("example.", keyring=RING)
            message.add(name := f"n{round_}-{number}", 5, "A", "192.0.2.9")
            try:
                if dns.query.udp(message, "127.0.0.1", 0.3, port).rcode() == 0:
                    acknowledged.append(name)
            except (OSError, dns.exception.Timeout):
                return

    for round_ in range(3):
        with process(tmp_path, port) as server:
            sender = asyncio.create_task(asyncio.to_thread(send_until_killed, round_))
            before = len(acknowledged)
            while len(acknowledged) < before + 20 + 7 * round_:  # noqa: ASYNC110 - polls: a thread appends to the list and signals no event
                await asyncio.sleep(0.01)  # poll interval; more updates are in flight when the server is killed
            server.send_signal(signal.SIGKILL)
            await sender
    found = restored(tmp_path)
    missing = [name for name in acknowledged if found.node(Name.from_text(f"{name}.example.")) is None]
    assert not missing
    assert len(acknowledged) <= found.serial - 1 <= len(acknowledged) + 3
