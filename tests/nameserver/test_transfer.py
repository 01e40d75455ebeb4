"""Tests for outgoing zone transfers: dig and dnspython as clients, and access control."""

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.name
import dns.query
import dns.tsig
import dns.xfr
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import Name, encode_query, rdtypes
from dnsmessage.keyfile import parse_keys
from dnsmessage.request import decode_request
from nameserver import Responder, Zone, access, parse
from nameserver.access import Access, SettingError
from nameserver.changes import MAX_HISTORY
from nameserver.inbound import Inbound, Whole
from nameserver.journal import Journal
from nameserver.server import Server
from nameserver.transfer import encode, revise, whole
from telemetry import Telemetry
from tests import judges
from tests.nameserver.daemons import KEY, SECRET

HEAD = "$TTL 60\n@ IN SOA ns hm {serial} 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
KEYS = parse_keys(KEY)
DIG_KEY = f"hmac-sha256:transfer.:{SECRET}"
ANYONE = Access(KEYS, (access.reader("127.0.0.0/8"),))


def text(serial: int, extra: str = "") -> str:
    return HEAD.format(serial=serial) + extra


@asynccontextmanager
async def primary(folder: Path, content: str, rights: Access = ANYONE) -> AsyncIterator[tuple[Server, int]]:
    """Serve example. with *content* from this process; yield the server and its port."""
    path = folder / "example.zone"
    path.write_text(content)
    server = Server(Telemetry("nameserver"), {"example.": path}, rights)
    listener = await server.start(("127.0.0.1", 0))
    try:
        yield server, listener.address[1]
    finally:
        await listener.close()
        server.close()


async def dig(port: int, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *judges.command("dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=5", "+onesoa", "+nocmd", "+nostats"),
        *words,
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode()


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line and not line.startswith(";")]


async def change(server: Server, content: str) -> Zone:
    return await server.publish(lambda: parse("example.", content))


async def test_dig_reads_the_whole_zone(tmp_path: Path) -> None:
    zone = 'w A 192.0.2.7\nw A 192.0.2.8\nm MX 5 w\n*.x TXT "a b"\nsub NS ns.sub\nns.sub A 192.0.2.9\n'
    async with primary(tmp_path, text(1, zone)) as (_, port):
        found = rows(await dig(port, "example.", "AXFR"))
    assert sorted(" ".join(row) for row in found) == sorted(
        """example. 60 IN SOA ns.example. hm.example. 1 2 3 4 5
example. 60 IN NS ns.example.
ns.example. 60 IN A 192.0.2.1
w.example. 60 IN A 192.0.2.7
w.example. 60 IN A 192.0.2.8
m.example. 60 IN MX 5 w.example.
*.x.example. 60 IN TXT "a b"
sub.example. 60 IN NS ns.sub.example.
ns.sub.example. 60 IN A 192.0.2.9""".splitlines()
    )


async def test_dig_reads_only_the_changes(tmp_path: Path) -> None:
    async with primary(tmp_path, text(1, "a A 192.0.2.7\nb A 192.0.2.8\n")) as (server, port):
        filler = "".join(f"f{i} A 192.0.2.9\n" for i in range(20))
        await change(server, text(2, "a A 192.0.2.7\nb A 192.0.2.8\n" + filler))
        await change(server, text(3, "a A 192.0.2.77\nb A 192.0.2.8\n" + filler))
        assert [row[3:] for row in rows(await dig(port, "example.", "IXFR=2"))] == [
            ["SOA", *["ns.example.", "hm.example.", "3", "2", "3", "4", "5"]],
            ["SOA", *["ns.example.", "hm.example.", "2", "2", "3", "4", "5"]],
            ["A", "192.0.2.7"],
            ["SOA", *["ns.example.", "hm.example.", "3", "2", "3", "4", "5"]],
            ["A", "192.0.2.77"],
            ["SOA", *["ns.example.", "hm.example.", "3", "2", "3", "4", "5"]],
        ]  # fmt: skip
        assert len(rows(await dig(port, "example.", "IXFR=9"))) == 1
        assert len(rows(await dig(port, "example.", "IXFR=0"))) == 26, "the history does not reach back"
        over_udp = rows(await dig(port, "example.", "+notcp", "IXFR=2"))
        assert len(over_udp) == 6
        await change(server, text(4, "a A 192.0.2.77\nb A 192.0.2.8\n" + filler + f"t TXT {'x' * 200} {'y' * 250}\n"))
        await change(server, text(5, "a A 192.0.2.77\nb A 192.0.2.8\n" + filler + f"t TXT {'z' * 200} {'y' * 250}\n"))
        over_udp = rows(await dig(port, "example.", "+notcp", "+noedns", "IXFR=4"))
        assert [row[6] for row in over_udp] == ["5"], "an answer over 512 bytes is the SOA record only"


async def test_dnspython_follows_a_hundred_changes_by_ixfr_and_ends_with_our_zone(tmp_path: Path) -> None:
    async with primary(tmp_path, text(1)) as (server, port):

        def pull(copy: dns.zone.Zone, serial: int | None) -> None:
            query, _ = dns.xfr.make_query(copy, serial=serial)
            dns.query.inbound_xfr("127.0.0.1", copy, query, port=port, timeout=5)

        copy = dns.zone.Zone("example.", relativize=False)
        await asyncio.to_thread(pull, copy, None)
        for serial in range(2, 101):
            await change(server, text(serial, "".join(f"h{i} A 10.0.{serial}.{i}\n" for i in range(serial % 7, 9))))
            if serial % 9 == 0:
                await asyncio.to_thread(pull, copy, 0)
        await asyncio.to_thread(pull, copy, 0)
        expected = dns.zone.from_text(
            text(100, "".join(f"h{i} A 10.0.100.{i}\n" for i in range(2, 9))), "example.", relativize=False
        )
        assert copy == expected


async def test_a_large_zone_arrives_in_many_messages_and_other_tasks_run_in_between(tmp_path: Path) -> None:
    names = "".join(f"host{i} A 10.0.{i >> 8 & 255}.{i & 255}\n" for i in range(20_000))
    async with primary(tmp_path, text(1, names)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        query = encode_query(7, Name.from_text("example."), 252, edns=False)
        writer.write(len(query).to_bytes(2, "big") + query)
        turns: list[float] = []

        async def take_turns() -> None:
            while True:
                turns.append(time.perf_counter())
                await asyncio.sleep(0)  # one iteration of the event loop

        task = asyncio.create_task(take_turns())
        records = messages = 0
        while records < 20_004:
            message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            records += int.from_bytes(message[6:8], "big")
            messages += 1
        task.cancel()
        writer.close()
    assert records == 20_004
    assert messages > 10
    gaps = sorted(later - sooner for sooner, later in itertools.pairwise(turns))
    assert len(gaps) > messages
    assert gaps[int(len(gaps) * 0.9)] < 0.05


RIGHTS = {
    "by-key": Access(KEYS, (access.reader("transfer."),)),
    "by-address": Access(KEYS, (access.reader("127.0.0.1"),)),
    "by-both": Access(KEYS, (access.reader("transfer.@127.0.0.0/8"),)),
    "another-zone": Access(KEYS, (access.reader("other.=127.0.0.1"), access.reader("other.=transfer."))),
    "another-address": Access(KEYS, (access.reader("transfer.@192.0.2.0/24"),)),
    "none": Access(KEYS),
}


@pytest.mark.parametrize(
    ("rights", "signed", "unsigned"),
    [("by-key", True, False), ("by-address", True, True), ("by-both", True, False), ("another-zone", False, False),
     ("another-address", False, False), ("none", False, False)],
)  # fmt: skip
async def test_a_transfer_needs_permission(tmp_path: Path, rights: str, signed: bool, unsigned: bool) -> None:
    async with primary(tmp_path, text(1), RIGHTS[rights]) as (_, port):
        with_key = await dig(port, "-y", DIG_KEY, "example.", "AXFR")
        without = await dig(port, "example.", "AXFR")
        wrong = await dig(port, "-y", DIG_KEY[:-6] + "AAAAA=", "example.", "AXFR")
        elsewhere = await dig(port, "test.", "AXFR")
        whole = await dig(port, "-y", DIG_KEY, "ns.example.", "A")
    assert (len(rows(with_key)) > 3, len(rows(without)) == 3) == (signed, unsigned), "the signed one has TSIG records"
    assert "BADSIG" in wrong or "NOTAUTH" in wrong
    assert "Transfer failed" in elsewhere
    assert "192.0.2.1" in whole
    assert "TSIG" in whole, "an ordinary query that is signed gets a signed answer"
    assert "WARNING: T" not in whole + with_key


async def test_a_request_for_changes_without_a_serial_is_malformed(tmp_path: Path) -> None:
    async with primary(tmp_path, text(1)) as (server, _):
        reply = server.handle(encode_query(7, Name.from_text("example."), 251), ("127.0.0.1", 9), "tcp")
        assert dns.message.from_wire(reply).rcode() == 1


async def test_a_whole_zone_is_never_sent_over_udp(tmp_path: Path) -> None:
    async with primary(tmp_path, text(1)) as (server, _):
        reply = server.handle(encode_query(7, Name.from_text("example."), 252), ("127.0.0.1", 9), "udp")
        assert dns.message.from_wire(reply).rcode() == 1


def test_the_history_is_bounded_in_records() -> None:
    from nameserver.changes import History

    history, old = History(), parse("example.", text(1))
    for serial in range(2, 40):
        new = parse("example.", text(serial, "".join(f"h{i} A 10.0.{serial}.1\n" for i in range(1000))))
        history.add(old.diff(new))
        old = new
    assert sum(map(len, history)) <= MAX_HISTORY
    assert history.since(1) is None
    assert [change.old for change in history.since(37) or ()] == [37, 38]


@pytest.mark.parametrize(
    ("parse_setting", "wrong", "message"),
    [
        (access.reader, "key@nonsense", "expected an address prefix"),
        (access.reader, "a..b", "expected labels"),
        (access.writer, "key:NOTYPE", "expected a record type"),
        (access.target, "host", "expected [ZONE=]ADDRESS"),
        (access.target, "192.0.2.1:0", "expected [ZONE=]ADDRESS"),
    ],
)
def test_a_bad_setting_says_what_was_expected(parse_setting, wrong: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        parse_setting(wrong)
    assert message in str(error.value)


def test_a_setting_with_an_unknown_key_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"expected a known key, got other\.; known: transfer\."):
        Access(KEYS, (access.reader("other"),)).check()


def test_an_update_policy_is_for_types_and_names() -> None:
    (key,) = KEYS.values()
    rights = Access(KEYS, writers=(access.writer("example.=transfer:TXT:_acme-challenge.*,*.dyn.example"),))
    zone = Name.from_text("example.")
    assert rights.may_update(zone, key)
    assert not rights.may_update(zone, None)
    assert not rights.may_update(Name.from_text("test."), key)
    for name, rdtype, allowed in [
        ("_acme-challenge.www.example.", 16, True), ("_acme-challenge.example.", 1, False),
        ("a.dyn.example.", 16, True), ("dyn.example.", 16, False), ("www.example.", 16, False),
    ]:  # fmt: skip
        assert rights.may_update(zone, key, Name.from_text(name), rdtype) == allowed, name


def received(zone: Zone) -> list[str]:
    """Return all records of a transfer of *zone* as dnspython reads them, in the order of the messages."""
    query = encode_query(1, zone.apex, rdtypes.AXFR)
    messages = [dns.message.from_wire(wire, one_rr_per_rrset=True) for wire in whole(decode_request(query), zone)]
    return [rrset.to_text() for message in messages for rrset in message.answer]


LABELS = st.sampled_from(["a", "b", "a.b", "Upper.b", "long" * 12])
#: Data of a TXT record that is large enough to push a message over its target size.
LONG = "TXT" + (" " + "y" * 249) * 128
RECORDS = st.tuples(LABELS, st.sampled_from(["A 192.0.2.1", "A 192.0.2.2", "TXT x", LONG, "MX 1 a"]))
ZONES = st.lists(RECORDS, max_size=12, unique=True)


@given(ZONES, st.lists(ZONES, min_size=1, max_size=4))
def test_messages_changed_with_the_zone_hold_the_records_of_the_zone(first: list, versions: list[list]) -> None:
    def make(serial: int, records: list[tuple[str, str]]) -> Zone:
        return parse("example.", text(serial, "".join(f"{name} {data}\n" for name, data in records)))

    zone = make(1, first)
    encode(zone)
    for serial, records in enumerate(versions, 2):
        change = zone.diff(make(serial, records))
        new = zone.apply(change)
        revise(zone, new, change)
        assert new.encoded
        found, fresh = received(new), received(make(serial, records))
        assert sorted(found) == sorted(fresh)
        assert found[0] == found[-1] == fresh[0]
        zone = new


def test_the_bytes_of_a_record_inside_another_record_are_kept() -> None:
    hidden = b"\1a\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    data = "".join(f"\\{byte:03d}" for byte in hidden)
    old = parse("example.", text(1, f'a A 192.0.2.1\nt TXT "{data}"\n'))
    new = parse("example.", text(2, f'a A 192.0.2.2\nt TXT "{data}"\n'))
    encode(old)
    revise(old, new, old.diff(new))
    assert new.encoded
    assert sorted(received(new)) == sorted(received(parse("example.", text(2, f'a A 192.0.2.2\nt TXT "{data}"\n'))))


def test_a_small_change_shares_the_other_messages_with_the_version_before_it() -> None:
    old = parse("example.", text(1, "".join(f"h{i} A 192.0.2.1\n" for i in range(5000))))
    encode(old)
    change = old.diff(old.replace(Name.from_text("h77.example."), rdtypes.A, 60, [b"\xc0\0\2\2"]))
    new = old.apply(change)
    revise(old, new, change)
    shared = {id(body) for _, body in old.encoded} & {id(body) for _, body in new.encoded}
    assert len(old.encoded) > 3
    assert len(shared) >= len(old.encoded) - 3, "all but the first, the changed and the last one"


SPELLED = "FooBar A 192.0.2.1\nfoobar MX 1 ns\nplain A 192.0.2.2\n$ORIGIN Sub.example.\nx A 192.0.2.3\n"


async def test_dig_sees_owner_names_in_the_case_in_which_they_were_entered(tmp_path: Path) -> None:
    async with primary(tmp_path, text(1, SPELLED)) as (server, port):
        first = {row[0] for row in rows(await dig(port, "example.", "AXFR"))}
        await change(server, text(2, SPELLED + "$ORIGIN example.\nNew A 192.0.2.4\n"))
        changes = {row[0] for row in rows(await dig(port, "example.", "IXFR=1"))}
        after = {row[0] for row in rows(await dig(port, "example.", "AXFR"))}
    assert first == {"example.", "ns.example.", "FooBar.example.", "plain.example.", "x.Sub.example."}
    assert changes == {"example.", "New.example."}
    assert after == first | {"New.example."}


def test_a_received_zone_and_a_journal_keep_the_case_of_owner_names(tmp_path: Path) -> None:
    zone = parse("Example.", text(1, SPELLED))
    query = encode_query(1, zone.apex, rdtypes.AXFR, edns=False)
    stream = Inbound(query, zone.apex, None)
    assert [stream.feed(message) for message in whole(decode_request(query), zone)] == [True]
    assert isinstance(stream.result, Whole)
    copy = stream.result.builder.zone()
    assert copy.spellings == zone.spellings == parse("example.", text(1, SPELLED)).spellings
    journal = Journal(tmp_path, zone.apex)
    journal.open()
    new = zone.replace(Name.from_text("Other.example."), rdtypes.A, 60, [bytes(4)])
    journal.append(zone, zone.diff(new), b"", b"")
    journal.close()
    stored = Journal(tmp_path, zone.apex).open()
    assert stored is not None
    assert stored.zone.spellings == new.spellings
    assert [str(name) for name in map(Name, sorted(new.spellings.values()))] == [
        "x.Sub.example.", "Other.example.", "FooBar.example."
    ]  # fmt: skip


def test_the_case_of_an_owner_name_is_that_of_the_latest_addition_until_its_last_record_is_deleted() -> None:
    zone, name = parse("example.", text(1, SPELLED)), Name.from_text("FOOBAR.EXAMPLE.")
    assert [str(rrset.name) for rrset in zone if rrset.name == name] == ["FooBar.example."] * 2
    zone = zone.replace(name, rdtypes.A, 60, [bytes(4)])
    assert str(zone.name(name.key)) == "FOOBAR.example."
    zone = zone.replace(name, rdtypes.A, 60, [])
    assert str(zone.name(name.key)) == "FOOBAR.example.", "the MX record is left"
    zone = zone.replace(name, rdtypes.MX, 60, [])
    assert set(zone.spellings) == {Name.from_text("x.sub.example.").key}
    zone = zone.replace(name, rdtypes.A, 60, [bytes(4)]).replace(Name(name.key), rdtypes.A, 60, [bytes(4)])
    assert str(zone.name(name.key)) == "foobar.example."


def test_the_case_of_names_does_not_change_answers() -> None:
    spelled, plain = (parse("example.", each) for each in (text(1, SPELLED), text(1, SPELLED.lower())))
    assert not spelled.differences(plain)
    for name in ("foobar.example.", "FOOBAR.example.", "x.sub.EXAMPLE.", "none.example."):
        query = encode_query(1, Name.from_text(name), rdtypes.A)
        replies = [Responder({zone.apex: zone}).respond(query, udp=True) for zone in (spelled, plain)]
        assert replies[0] == replies[1] is not None
