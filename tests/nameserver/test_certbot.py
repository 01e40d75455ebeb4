"""Tests with certbot's dns-rfc2136 plug-in, which adds and removes the TXT record of a dns-01 challenge."""

import asyncio
import logging
from pathlib import Path

import dns.name
import pytest

from dnsmessage import Name, rdtypes
from nameserver import access
from nameserver.access import Access
from tests.nameserver.daemons import SECRET
from tests.nameserver.test_transfer import KEYS, primary
from tests.nameserver.test_update import ZONE

plugin = pytest.importorskip("certbot_dns_rfc2136._internal.dns_rfc2136")
errors = pytest.importorskip("certbot.errors")

CHALLENGE = Name.from_text("_acme-challenge.w.example.")
POLICY = Access(KEYS, (), (access.writer("example.=transfer:TXT:_acme-challenge.*"),))


def client(port: int, *, signed: bool, secret: str = SECRET):
    algorithm = dns.name.from_text("hmac-sha256")
    return plugin._RFC2136Client("127.0.0.1", port, "transfer.", secret, algorithm, signed, 5)


@pytest.mark.parametrize("signed", [True, False], ids=["signed-queries", "unsigned-queries"])
async def test_certbot_sets_two_tokens_and_removes_them_by_value(tmp_path: Path, signed: bool) -> None:
    async with primary(tmp_path, ZONE, POLICY) as (server, port):

        def tokens() -> list[bytes]:
            found = (server.responder.zones[Name.from_text("example.")].node(CHALLENGE) or {}).get(rdtypes.TXT)
            return [] if found is None else sorted(each[1:] for each in found.rdata)

        certbot = client(port, signed=signed)
        for token in ("first", "second"):
            await asyncio.to_thread(certbot.add_txt_record, "_acme-challenge.w.example", token, 120)
        assert tokens() == [b"first", b"second"]
        await asyncio.to_thread(certbot.del_txt_record, "_acme-challenge.w.example", "first")
        assert tokens() == [b"second"]
        await asyncio.to_thread(certbot.del_txt_record, "_acme-challenge.w.example", "second")
        assert tokens() == []
        assert server.responder.zones[Name.from_text("example.")].serial == 9


async def test_certbot_sees_why_it_may_not_change_a_zone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nameserver")
    async with primary(tmp_path, ZONE, POLICY) as (server, port):
        for name, secret, offset, word, event in (
            ("www.example", SECRET, 0.0, "REFUSED", "update_rejected"),
            ("_acme-challenge.w.example", SECRET[::-1].replace("=", "A"), 0.0, "signature", "tsig_rejected"),
            ("_acme-challenge.w.example", SECRET, 3600.0, "time", "tsig_rejected"),
        ):
            server.telemetry.clock.offset = offset
            caplog.clear()
            with pytest.raises(errors.PluginError, match=rf"(?i){word}"):
                await asyncio.to_thread(client(port, signed=False, secret=secret).add_txt_record, name, "token", 120)
            assert event in [record.message for record in caplog.records], name
        assert server.responder.zones[Name.from_text("example.")].serial == 5
