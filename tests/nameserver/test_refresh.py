"""Tests for secondary zones over real sockets, with BIND, NSD and Knot as primaries."""

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dnsmessage import Name
from dnsmessage.keyfile import parse_keys
from nameserver import copies, parse
from nameserver.__main__ import main
from nameserver.access import Access
from nameserver.secondary import Primary
from nameserver.server import Server
from telemetry import AdminError, Request, Telemetry
from tests.nameserver.daemons import KEY, Daemon, daemon, free_port
from tests.nameserver.test_inbound import HOST, NS, WHOLE, message, soa

APEX = Name.from_text("example.")
TRANSFER = Name.from_text("transfer.")
#: Master file with a refresh interval of an hour, so that only a NOTIFY can trigger a transfer during a test.
ZONE = "$TTL 60\n@ IN SOA ns hm {serial} 3600 1 600 10\n@ IN NS ns\nns IN A 192.0.2.1\n{more}"
QUERY = b"\0\1\0\0\0\1\0\0\0\0\0\0\1w\7example\0\0\1\0\1"


@asynccontextmanager
async def secondary(*primaries: Primary, state: Path | None = None, port: int = 0) -> AsyncIterator[Server]:
    """Run our server as a secondary of *primaries*."""
    server = Server(Telemetry("nameserver"), {}, Access(parse_keys(KEY), state=state), None, {APEX: primaries})
    listener = await server.start(("127.0.0.1", port))
    try:
        yield server
    finally:
        server.close()
        await listener.close()


async def until(condition: Callable[[], bool], server: Server, seconds: float = 20.0) -> None:
    """Wait until *condition* returns True; fail after *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, server.telemetry.health.as_dict()
        await asyncio.sleep(0.02)  # poll interval


def serial(server: Server) -> int | None:
    zone = server.zone(APEX)
    return None if zone is None else zone.serial


#: Configuration of the zone at each primary: {folder} is its folder, {port} the port of the secondary.
PRIMARIES = {
    "named": 'zone "example." {{ type primary; file "example.zone"; allow-transfer {{ key "transfer."; }};'
    ' allow-update {{ key "transfer."; }}; notify explicit;'
    ' also-notify {{ 127.0.0.1 port {port} key "transfer."; }}; }};',
    "nsd": 'zone:\n  name: example.\n  zonefile: "example.zone"\n  provide-xfr: 127.0.0.1 transfer.\n'
    "  notify: 127.0.0.1@{port} transfer.\n  store-ixfr: yes\n  create-ixfr: yes\n",
    "knotd": "remote:\n  - id: secondary\n    address: 127.0.0.1@{port}\n    key: transfer.\n"
    "acl:\n  - id: all\n    key: transfer.\n    action: [transfer, update]\n"
    "zone:\n  - domain: example.\n    storage: {folder}\n    file: example.zone\n    acl: all\n"
    "    notify: secondary\n    zonefile-sync: -1\n    journal-content: changes\n",
}


def running(name: str, tmp_path: Path, port: int = 9) -> AbstractContextManager[Daemon]:
    """Return a context manager that runs the primary *name*, which notifies a secondary on *port*."""
    clause = PRIMARIES[name].format(folder=tmp_path / "peer", port=port)
    return daemon(name, tmp_path / "peer", clause, text=ZONE.format(serial=5, more=""))


def change(primary: Daemon, tmp_path: Path) -> None:
    """Add the record ``w`` to the zone of *primary* and set its serial number to 6."""
    if primary.name == "nsd":
        primary.write("example.", ZONE.format(serial=6, more="w IN A 192.0.2.7\n"))
        os.kill(int((primary.folder / "nsd.pid").read_text()), signal.SIGHUP)
        return
    key = tmp_path / "key"
    key.write_text(KEY)
    script = f"server 127.0.0.1 {primary.port}\nzone example.\nupdate add w.example. 60 A 192.0.2.7\nsend\n"
    subprocess.run(["nsupdate", "-k", key], input=script.encode(), check=True, timeout=10)


@pytest.mark.parametrize("name", PRIMARIES)
async def test_a_zone_arrives_whole_and_its_changes_by_notify_and_ixfr_from(name: str, tmp_path: Path) -> None:
    port = free_port()
    with running(name, tmp_path, port) as primary:
        async with secondary(Primary("127.0.0.1", primary.port, TRANSFER), state=tmp_path, port=port) as server:
            await until(lambda: serial(server) == 5, server)
            assert rcode(server) == 3
            await asyncio.to_thread(change, primary, tmp_path)
            await until(lambda: serial(server) == 6, server)
            assert bytes([192, 0, 2, 7]) in server.handle(QUERY, ("192.0.2.9", 1), "udp")
            path = tmp_path / "example.copy"
            await until(lambda: (found := copies.read(path, APEX)) is not None and found[0].serial == 6, server)
            rendered = server.telemetry.metrics.render()
            assert 'transfers_total{kind="AXFR",outcome="done"} 1' in rendered
            assert 'transfers_total{kind="IXFR",outcome="done"} 1' in rendered


def rcode(server: Server) -> int:
    return server.handle(QUERY, ("192.0.2.9", 1), "udp")[3] & 15


def health(server: Server) -> tuple[bool, str]:
    check = server.telemetry.health.as_dict()["checks"]["zone example."]
    return check["ok"], check["detail"]


def saved(folder: Path, age: float = 0.0, expire: int = 600) -> Path:
    """Write a copy with serial number 5, confirmed *age* seconds ago, into *folder*; return its path."""
    zone = parse("example.", ZONE.format(serial=5, more="w IN A 192.0.2.7\n").replace("600", str(expire)))
    path = copies.path_of(folder, APEX)
    copies.write(path, zone, time.time() - age)
    return path


#: A primary that refuses connections: nothing listens on the discard port of loopback.
GONE = Primary("127.0.0.1", 9)


async def test_a_restarted_secondary_serves_its_copy_while_its_primary_is_gone(tmp_path: Path) -> None:
    saved(tmp_path)
    async with secondary(GONE, state=tmp_path) as server:
        assert rcode(server) == 0
        await until(lambda: "onnection refused" in health(server)[1], server)
        assert health(server)[0]
        assert rcode(server) == 0


async def test_a_zone_that_expires_is_answered_with_servfail_and_health_says_so(tmp_path: Path) -> None:
    saved(tmp_path, age=1.7, expire=2)
    async with secondary(GONE, state=tmp_path) as server:
        assert rcode(server) == 0
        await until(lambda: not health(server)[0], server)
        assert rcode(server) == 2
        assert "expired: no primary confirmed serial 5 in time" in health(server)[1]


async def test_a_copy_that_expired_during_an_outage_is_not_served(tmp_path: Path) -> None:
    saved(tmp_path, age=601.0)
    async with secondary(GONE, state=tmp_path) as server:
        assert rcode(server) == 2


def test_a_server_may_have_several_secondary_zones() -> None:
    zones = {APEX: [GONE], Name.from_text("other."): [GONE]}
    server = Server(Telemetry("nameserver"), {}, None, None, zones)
    assert [each["zone"] for each in server.admin._zones(Request("GET", ""))] == ["example.", "other."]


@pytest.mark.parametrize("damage", [b"", b"w 60 IN A 192.0.2.9\n"], ids=["empty", "changed"])
async def test_a_damaged_copy_is_a_log_line_and_not_an_outage(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes() + damage if damage else b"")
    async with secondary(GONE, state=tmp_path) as server:
        assert rcode(server) == 2
        assert health(server) == (False, "no data yet") or "onnection refused" in health(server)[1]


async def test_a_full_disk_keeps_the_zone_in_service(tmp_path: Path) -> None:
    with running("nsd", tmp_path) as primary:
        async with secondary(Primary("127.0.0.1", primary.port, TRANSFER), state=tmp_path / "missing") as server:
            await until(lambda: health(server) == (True, "serial 5"), server)


@pytest.mark.parametrize(
    ("key", "offset", "trouble"),
    [
        pytest.param(None, 0.0, "AXFR: expected NOERROR, got", id="no-key"),
        pytest.param(TRANSFER, 3600.0, "AXFR: the server reports BADTIME", id="clock-off-by-an-hour"),
        pytest.param(Name.from_text("other."), 0.0, "AXFR: the server reports BADKEY", id="unknown-key"),
        pytest.param(Name.from_text("wrong."), 0.0, "AXFR: the server reports BAD", id="wrong-secret"),
    ],
)
async def test_a_transfer_that_a_primary_does_not_allow_says_why(
    tmp_path: Path, key: Name | None, offset: float, trouble: str
) -> None:
    with running("named", tmp_path) as primary:
        known = parse_keys(KEY)[TRANSFER]
        keys = {
            TRANSFER: known,
            Name.from_text("other."): replace(known, name=Name.from_text("other.")),
            Name.from_text("wrong."): replace(known, secret=b"wrong"),
        }
        source = Primary("127.0.0.1", primary.port, key)
        server = Server(Telemetry("nameserver"), {}, Access(keys), None, {APEX: [source]})
        server.telemetry.clock.offset = offset
        listener = await server.start(("127.0.0.1", 0))
        await until(lambda: "AXFR" in health(server)[1], server)
        assert trouble in health(server)[1]
        assert rcode(server) == 2
        server.close()
        await listener.close()


def transferring(*records: str, cut: int = 0) -> Callable[..., Awaitable[None]]:
    """Return a handler that answers a transfer with *records*, without the last *cut* bytes, then disconnects."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            ident = struct.unpack("!H", (await reader.readexactly(length))[:2])[0]
            answer = message(*records, ident=ident)
            writer.write((struct.pack("!H", len(answer)) + answer)[: None if not cut else -cut])
            await writer.drain()

    return script


@pytest.mark.parametrize(
    ("records", "cut", "trouble"),
    [
        pytest.param(WHOLE[:-1], 0, "the connection ended in the middle of the transfer", id="killed-between-messages"),
        pytest.param(WHOLE, 5, "the connection ended in the middle of the transfer", id="killed-in-a-message"),
        pytest.param((soa(7), HOST, soa(7)), 0, "expected NS records at example., got none", id="not-a-zone"),
        pytest.param((soa(4), NS, HOST, soa(4)), 0, "expected a serial newer than 5, got 4", id="older"),
    ],
)
async def test_a_transfer_that_fails_leaves_the_last_zone_in_service(
    tmp_path: Path, records: tuple[str, ...], cut: int, trouble: str
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    script = transferring(*records, cut=cut)
    primary = await asyncio.start_server(script, "127.0.0.1", 0)
    async with primary, secondary(Primary("127.0.0.1", primary.sockets[0].getsockname()[1]), state=tmp_path) as server:
        assert server.secondaries.notified(APEX, "127.0.0.1", 7) == 0
        await until(lambda: trouble in health(server)[1], server)
        assert (serial(server), rcode(server)) == (5, 0)
        assert path.read_bytes() == before


async def test_a_secondary_zone_is_not_changed_through_the_admin_port(tmp_path: Path) -> None:
    saved(tmp_path)
    async with secondary(Primary("192.0.2.53"), state=tmp_path) as server:
        body = b'{"name":"w","type":"A","ttl":1,"rdata":["192.0.2.7"]}'
        with pytest.raises(AdminError, match=r"change it on its primary, 192\.0\.2\.53"):
            await server.admin._put(Request("PUT", "", {}, {"zone": "example."}, {}, body))
        (listed,) = server.admin._zones(Request("GET", ""))
        assert listed["secondary"]["primaries"] == ["192.0.2.53"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "expected --zone or --secondary, got none"),
        (["--secondary", "example.=192.0.2.1#nokey"], "expected the key nokey. of example."),
        (["--secondary", "example.=192.0.2.1", "--workers", "2"], "expected one process with --secondary"),
        (["--secondary", "example."], "expected NAME=ADDRESS[:PORT][#KEY]"),
        (["--secondary", "example.=ns1"], "expected NAME=ADDRESS[:PORT][#KEY]"),
        (["--secondary", "example.=192.0.2.1:0"], "expected a port from 1 to 65535"),
    ],
    ids=["nothing-to-serve", "missing-key", "two-workers", "no-primary", "a-name", "port-0"],
)
def test_settings_of_secondaries_that_make_no_sense_end_with_exit_code_2(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["--listen", "127.0.0.1:0", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert error in capsys.readouterr().err
