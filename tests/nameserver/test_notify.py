"""Tests for NOTIFY: schedule and targets of the messages, which dnspython and our own server decode."""

import asyncio
import logging
import random
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import pytest

from dnsmessage import Name, Record, rdtypes
from nameserver import Zone, access, parse
from nameserver.access import Access, Target
from nameserver.notify import DELAY, RETRIES, Notifier, targets
from nameserver.server import Server
from telemetry import Telemetry
from tests.nameserver.test_transfer import KEYS

TEXT = """$TTL 60
@ IN SOA NS1 hm {serial} 2 3 4 5
@ IN NS ns1
@ IN NS ns2
@ IN NS ns3
@ IN NS ns.elsewhere.test.
ns1 IN A 192.0.2.1
ns2 IN A 192.0.2.2
ns2 IN A 192.0.2.22
ns3 IN A 192.0.2.3
"""
TARGETS = [Target(None, "192.0.2.2"), Target(None, "192.0.2.3", 5353)]


def zone(serial: int) -> Zone:
    return parse("example.", TEXT.format(serial=serial))


def soa(serial: int) -> Record:
    served = zone(serial)
    return Record(served.apex, rdtypes.SOA, 60, served.soa.rdata[0])


def answer(wire: bytes) -> bytes:
    return wire[:2] + bytes((wire[2] | 0x80,)) + wire[3:]


def test_a_burst_of_changes_is_one_message_per_server_with_the_last_serial() -> None:
    notifier = Notifier(random.Random(1))
    for number in range(20):
        notifier.changed(soa(number + 1), TARGETS, number * DELAY / 40)
    assert notifier.next() == DELAY
    assert notifier.due(DELAY - 0.01) == []
    notices = notifier.due(DELAY)
    assert [(each.target, each.serial) for each in notices] == [(each, 20) for each in TARGETS]
    message = dns.message.from_wire(notices[0].wire)
    assert message.opcode() == dns.opcode.NOTIFY
    assert message.flags & dns.flags.AA
    assert message.answer[0].to_text() == "example. 60 IN SOA ns1.example. hm.example. 20 2 3 4 5".replace("ns1", "NS1")


def test_a_message_is_repeated_until_it_is_answered_and_then_no_more() -> None:
    notifier = Notifier(random.Random(1))
    notifier.changed(soa(1), TARGETS[:1], 0.0)
    now, times = 0.0, list[float]()
    while (at := notifier.next()) is not None:
        now = at
        times += [now] if not (notice := notifier.due(now)[0]).given_up else []
    assert times == pytest.approx([DELAY + sum(RETRIES[:count]) for count in range(len(RETRIES))])
    assert notice.given_up
    assert now == pytest.approx(DELAY + sum(RETRIES))

    notifier.changed(soa(2), TARGETS, 100.0)
    first, second = notifier.due(101.0)
    assert notifier.acknowledged(answer(second.wire), ("192.0.2.2", 53)) is None, "from another server"
    assert notifier.acknowledged(first.wire, ("192.0.2.2", 53)) is None, "a request, not an answer"
    assert notifier.acknowledged(b"short", ("192.0.2.2", 53)) is None
    done = notifier.acknowledged(answer(first.wire), ("192.0.2.2", 53))
    assert done is not None
    assert done.serial == 2
    assert repr(notifier) == "<Notifier 1 unanswered>"


def test_a_later_change_starts_over() -> None:
    notifier = Notifier(random.Random(1))
    notifier.changed(soa(1), TARGETS[:1], 0.0)
    (old,) = notifier.due(1.0)
    notifier.changed(soa(2), TARGETS[:1], 1.5)
    assert notifier.acknowledged(answer(old.wire), ("192.0.2.2", 53)) is None
    assert notifier.next() == 1.5 + DELAY
    assert [each.serial for each in notifier.due(1.5 + DELAY)] == [2]


READERS = (access.reader("192.0.2.0/24"),)


@pytest.mark.parametrize(
    ("rights", "own", "primary", "expected"),
    [
        pytest.param(Access(readers=READERS), "0.0.0.0", True, ["192.0.2.2", "192.0.2.22", "192.0.2.3"], id="its-ns"),
        pytest.param(Access(readers=READERS), "192.0.2.3", True, ["192.0.2.2", "192.0.2.22"], id="not-itself"),
        pytest.param(Access(), "0.0.0.0", True, [], id="no-one-may-transfer"),
        pytest.param(
            Access(KEYS, READERS, (), (access.target("192.0.2.2#transfer"), access.target("192.0.2.9:54"))), "0.0.0.0",
            False, ["192.0.2.2 transfer.", "192.0.2.9"], id="secondary",
        ),
        pytest.param(
            Access(KEYS, READERS, (), (access.target("example.=192.0.2.2#transfer"), access.target("test.=192.0.2.9"))),
            "0.0.0.0", True, ["192.0.2.2 transfer.", "192.0.2.22", "192.0.2.3"], id="with-a-key",
        ),
    ],
)  # fmt: skip
def test_who_is_notified(rights: Access, own: str, primary: bool, expected: list[str]) -> None:
    found = targets(zone(1), rights, own, primary=primary)
    assert [f"{each.address} {each.key or ''}".strip() for each in found] == expected


def test_the_apex_may_be_the_name_server() -> None:
    served = parse("example.", TEXT.format(serial=1).replace("SOA NS1", "SOA @"))
    assert len(targets(served, Access(readers=READERS), "0.0.0.0", primary=True)) == 4
    assert served.apex == Name.from_text("example.")


async def test_two_zones_are_announced_to_one_server_with_one_key(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "nameserver")
    received: list[tuple[str, int | None]] = []
    receiver = Server(Telemetry("nameserver"), {}, Access(KEYS))

    def notified(apex: Name, _client: str, serial: int | None) -> int:
        received.append((str(apex), serial))
        return 0

    receiver.requests.notified = notified
    listener = await receiver.start(("127.0.0.1", 0))
    names = ("example.", "test.")
    for number, name in enumerate(names):
        (tmp_path / name).write_text(TEXT.format(serial=number + 7))
    rights = Access(KEYS, targets=(access.target(f"127.0.0.1:{listener.address[1]}#transfer"),))
    sender = Server(Telemetry("nameserver"), {name: tmp_path / name for name in names}, rights)
    other = await sender.start(("127.0.0.1", 0))
    try:
        async with asyncio.timeout(10):
            while sum(record.message == "notify_answered" for record in caplog.records) < 2:  # noqa: ASYNC110 - polls: log records signal no event
                await asyncio.sleep(0.01)  # poll interval
    finally:
        for each, server in ((listener, receiver), (other, sender)):
            await each.close()
            server.close()
    assert sorted(received) == [("example.", 7), ("test.", 8)]
    assert "notify_answer_rejected" not in [record.message for record in caplog.records]
