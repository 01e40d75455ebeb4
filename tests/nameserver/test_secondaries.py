"""Tests with NSD, BIND and Knot as secondaries of our primary: an AXFR with TSIG, then NOTIFY and IXFR."""

import asyncio
import logging
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import dns.zone
import pytest

from nameserver import access
from nameserver.access import Access
from tests.nameserver.daemons import daemon, free_port
from tests.nameserver.test_transfer import KEYS, change, primary, text

#: Template of each server's zone clause; the placeholders are the primary's port and the server's folder.
CLAUSES = {
    "named": """zone "example." {{ type secondary; file "copy"; masterfile-format text; allow-transfer {{ any; }};
primaries port {port} {{ 127.0.0.1 key transfer.; }}; }};
""",
    "nsd": """zone:
  name: example.
  zonefile: copy
  request-xfr: 127.0.0.1@{port} transfer.
  allow-notify: 127.0.0.1 transfer.
  provide-xfr: 127.0.0.1 NOKEY
""",
    "knotd": """remote:
  - id: primary
    address: 127.0.0.1@{port}
    key: transfer.
acl:
  - id: notify
    address: 127.0.0.1
    key: transfer.
    action: notify
  - id: transfer
    address: 127.0.0.1
    action: transfer
zone:
  - domain: example.
    storage: {folder}
    master: primary
    acl: [notify, transfer]
""",
}


def serial_at(port: int) -> int:
    """Return the serial number of example. at a peer; 0 while the peer does not serve the zone."""
    reply = dns.query.udp(dns.message.make_query("example.", "SOA"), "127.0.0.1", 5, port)
    return reply.answer[0][0].serial if reply.answer else 0


async def until_serial(port: int, serial: int) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(serial_at, port) != serial:  # noqa: ASYNC110 - polls: the peer is another process and signals no event
            await asyncio.sleep(0.02)  # poll interval


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict]:
    """Return the fields of every log record of *event*."""
    return [vars(record)["fields"] for record in caplog.records if record.message == event]


@pytest.mark.parametrize("peer", CLAUSES)
async def test_another_server_follows_our_zone(tmp_path: Path, peer: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nameserver")
    mine = free_port()
    rights = Access(KEYS, (access.reader("transfer"),), (), (access.target(f"127.0.0.1:{mine}#transfer"),))
    filler = (
        "".join(f"f{i} A 192.0.2.9\n" for i in range(300)) + "m MX 5 f1\n*.w TXT text\ns NS ns.s\nns.s A 192.0.2.3\n"
    )
    async with primary(tmp_path, text(1, filler), rights) as (server, port):
        clause = CLAUSES[peer].format(port=port, folder=tmp_path / "peer")
        with daemon(peer, tmp_path / "peer", clause, port=mine):
            await until_serial(mine, 1)
            for serial in (2, 3):
                content = text(serial, f"{filler}new A 192.0.2.{serial}\n")
                await change(server, content)
                await until_serial(mine, serial)
            copy = dns.zone.Zone("example.", relativize=False)
            await asyncio.to_thread(dns.query.inbound_xfr, "127.0.0.1", copy, port=mine)
            assert copy == dns.zone.from_text(content, "example.", relativize=False)
    transfers = logged(caplog, "transfer")
    assert {each["key"] for each in transfers} == {"transfer."}
    assert [each["type"] for each in transfers if each["serial"] == 3] == ["IXFR"]
    assert [each["serial"] for each in logged(caplog, "notify_answered")][-2:] == [2, 3]
