"""Fuzz tests of transfers, UPDATE, NOTIFY and signatures: no exceptions, no slow messages, no memory growth."""

import struct
import time
from collections.abc import Awaitable

import dns.update
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsmessage import Name, RemoteError, encode_query, tsig
from dnsmessage.request import decode_request
from nameserver import access, parse
from nameserver.access import Access
from nameserver.changes import History
from nameserver.errors import NameServerError
from nameserver.journal import Journal
from nameserver.requests import Outcome, Requests
from nameserver.responder import Responder
from nameserver.update import UpdateError, changed
from tests.nameserver.test_transfer import KEYS
from tests.nameserver.test_update import ZONE

NOW = 1_800_000_000
(KEY,) = KEYS.values()
APEX = Name.from_text("example.")
SERVED = parse("example.", ZONE)
RIGHTS = Access(KEYS, (access.reader("127.0.0.0/8"),), (access.writer("transfer"),))
#: Maximum CPU time for one message, in seconds.
MAX_TIME = 0.005


def messages() -> list[bytes]:
    """Return valid requests of every kind."""
    update = dns.update.UpdateMessage("example.")
    update.present("w", "A")
    update.absent("x")
    update.add("new", 5, "A", "192.0.2.9")
    update.add("new", 5, "MX", "5 w")
    update.delete("w", "A", "192.0.2.7")
    update.delete("alias")
    soa = SERVED.soa.rdata[0]
    record = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 60, len(soa)) + soa
    axfr = encode_query(7, APEX, 252, edns=False)
    ixfr = encode_query(7, APEX, 251, edns=False)
    plain = [
        axfr, update.to_wire(), ixfr[:8] + b"\0\1\0\0" + ixfr[12:] + record,
        b"\0\7\x24\0\0\1\0\1\0\0\0\0" + APEX.wire + b"\0\6\0\1" + record,
    ]  # fmt: skip
    return plain + [tsig.sign(each, KEY, NOW)[0] for each in plain]


MESSAGES = messages()
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "copy"]), st.integers(0, 400), st.binary(max_size=8)), max_size=6
)


def edited(wire: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, data in edits:
        at = place % (len(wire) + 1)
        if kind == "set":
            wire = wire[:at] + data + wire[at + len(data) :]
        elif kind == "cut":
            wire = wire[:at]
        elif kind == "insert":
            wire = wire[:at] + data + wire[at:]
        else:
            wire += wire[at : at + 40]
    return wire


def requests() -> tuple[Requests, dict[Name, History]]:
    histories: dict[Name, History] = {}
    made = Requests(Responder({APEX: SERVED}), RIGHTS, histories)
    made.notified = lambda _apex, _client, _serial: 0

    async def update(_apex: Name, wire: bytes, _key: object) -> int:
        try:
            change = changed(SERVED, decode_request(wire), lambda _name, _rdtype: True)
            if change is not None:
                SERVED.apply(change)
        except (UpdateError, RemoteError) as error:
            return error.rcode
        except NameServerError:
            return 5
        return 0

    made.update = update
    return made, histories


def answered(made: Requests, wire: bytes, udp: bool) -> bytes:
    """Return all messages of the reply, joined."""
    outcome = made.respond(wire, "127.0.0.1", lambda: NOW, udp=udp)
    if outcome is None:
        return b""
    if isinstance(outcome, Awaitable):
        try:
            next(outcome.__await__())  # the reply is ready without waiting
        except StopIteration as ended:
            outcome = ended.value
    assert isinstance(outcome, Outcome)
    return outcome.wire if isinstance(outcome.wire, bytes) else b"".join(outcome.wire)


@settings(max_examples=600)
@given(st.sampled_from(MESSAGES), EDITS, st.booleans(), st.booleans())
def test_no_request_raises_takes_long_or_leaves_something_behind(wire: bytes, edits, sign: bool, udp: bool) -> None:
    made, histories = requests()
    wire = edited(wire, edits)
    if sign and len(wire) >= 12:
        wire = tsig.sign(wire, KEY, NOW)[0]
    reply = b""
    for _ in range(3):  # retry: garbage collection may slow down a single run
        began = time.process_time()
        reply = answered(made, wire, udp)
        if (took := time.process_time() - began) < MAX_TIME:
            break
    assert took < MAX_TIME
    assert not reply or reply[:2] == wire[:2] or tsig.split(wire)[1] is not None
    assert set(histories) <= {APEX}


def many(count: int, record: bytes, opcode: int = 0x28, section: int = 2) -> bytes:
    counts = [0, 0, 0]
    counts[section] = count
    return struct.pack("!6H", 7, opcode << 8, 1, *counts) + APEX.wire + b"\0\6\0\1" + record * count


@pytest.mark.parametrize(
    "wire",
    [
        many(4096, b"\1w\xc0\x0c\0\1\0\1\0\0\0\5\0\0"),
        many(5900, b"\0\0\1\0\1\0\0\0\5\0\0"),
        many(65_535, b""),
        many(500, b"\1a" * 60 + b"\0\0\1\0\1\0\0\0\5\0\0"),
        many(4000, b"\0\0\1\0\1\0\0\0\5\0\0", 0x20, 0),
        many(1, struct.pack("!BHHIH", 0, 250, 255, 0, 60_000) + bytes(60_000)),
        many(1, b"\x3f" * 64 * 900),
    ],
    ids=["records", "small-records", "a-count-only", "labels", "notify", "tsig-of-zeros", "no-end"],
)
def test_large_requests_without_permission_are_cheap(wire: bytes) -> None:
    made, _ = requests()
    times = []
    for _ in range(5):
        began = time.process_time()
        answered(made, wire[:65_535], udp=False)
        times.append(time.process_time() - began)
    assert min(times) < MAX_TIME


@settings(max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_in_a_journal_are_read_or_refused(tmp_path_factory, data: bytes, at: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    first = Journal(folder, APEX)
    old = SERVED
    for _ in range(2):
        new = old.replace(Name.from_text("w.example."), 1, 5, [b"\xc0\0\2\1"])
        first.append(old, old.diff(new), b"", b"")
        old = new
    first.close()
    content = first.path.read_bytes()
    first.path.write_bytes(content[:at] + data + content[at + len(data) :])
    again = Journal(folder, APEX)
    try:
        stored = again.open()
    except NameServerError:
        return
    finally:
        again.close()
    assert stored is not None
    assert stored.zone.serial in {5, 6, 7}
