"""Tests for differences between versions of a zone, and for serial numbers."""

import itertools
import random

import pytest

from dnsmessage import Name, Record, rdtypes
from nameserver import Zone, ZoneError, parse
from nameserver.changes import is_newer, next_serial
from tests.nameserver.test_peers import make_zone

HEAD = "$TTL 60\n@ IN SOA ns hm {} 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"


def content(zone: Zone) -> dict[tuple[Name, int], tuple[int, set[bytes]]]:
    return {(r.name, r.rdtype): (r.ttl, set(r.rdata)) for r in zone}


def zone(text: str = "", serial: int = 1):
    return parse("example.", HEAD.format(serial) + text)


def test_the_difference_of_random_zones_applied_to_one_gives_the_other() -> None:
    rng = random.Random(7)
    for serial in range(2, 60):
        old = parse("example.", make_zone(rng))
        new = parse("example.", make_zone(rng).replace("hm 1", f"hm {serial}"))
        made = old.apply(old.diff(new))
        assert content(made) == content(new)
        assert (made.empty, made.cuts, made.serial) == (new.empty, new.cuts, serial)


def test_a_change_lists_only_the_records_that_differ() -> None:
    old, new = zone("w A 192.0.2.7\nw A 192.0.2.8\n"), zone("w A 192.0.2.8\nw A 192.0.2.9\n", 2)
    change = old.diff(new)
    assert repr(change) == "<Change 1..2 -1 +1>"
    assert [(str(r.name), r.rdtype, r.rdata[-1]) for r in change if r.rdtype == rdtypes.A] == [
        ("w.example.", 1, 7), ("w.example.", 1, 9)
    ]  # fmt: skip


def test_a_new_ttl_deletes_and_adds_every_record_of_the_rrset() -> None:
    change = zone("w 5 A 192.0.2.7\nw 5 A 192.0.2.8\n").diff(zone("w 6 A 192.0.2.7\nw 6 A 192.0.2.8\n", 2))
    assert (len(change.deleted), len(change.added)) == (2, 2)


def test_names_in_rdata_are_compared_without_case() -> None:
    old = zone("w CNAME A.example.\n")
    change = zone("w CNAME a.EXAMPLE.\n").diff(zone("", 2))
    assert len(old.apply(change)) == 3


W = Name.from_text("w.example.")


@pytest.mark.parametrize(
    ("deleted", "added", "message"),
    [
        ([], [Record(Name.from_text("ns.example."), 1, 60, b"\xc0\0\2\1")], "cannot add ns.example. A"),
        ([Record(W, 1, 60, b"\xc0\0\2\1")], [], "expected to delete w.example. A"),
        ([], [Record(Name.from_text("w.test."), 1, 60, b"\xc0\0\2\1")], "cannot add w.test. A"),
        ([Record(Name.from_text("example."), 2, 60, b"\2ns\7example\0")], [], "expected NS records at example."),
    ],
    ids=["present", "absent", "outside", "invalid-result"],
)
def test_a_change_that_does_not_fit_is_refused(deleted, added, message: str) -> None:
    old = zone()
    change = old.diff(zone("", 2))
    wrong = type(change)(change.old_soa, change.new_soa, tuple(deleted), tuple(added))
    with pytest.raises(ZoneError, match=message):
        old.apply(wrong)
    with pytest.raises(ZoneError, match=r"expected a change of example\. 5, got example\. 1"):
        zone("", 5).apply(change)


@pytest.mark.parametrize(
    ("serial", "than", "newer"),
    [(2, 1, True), (1, 2, False), (1, 1, False), (0, 2**32 - 1, True), (2**31, 0, False), (2**31 - 1, 0, True)],
)
def test_serials_are_compared_on_a_circle(serial: int, than: int, newer: bool) -> None:
    assert is_newer(serial, than) == newer


def test_the_serial_after_the_last_is_one() -> None:
    assert next_serial(2**32 - 1) == 1
    assert next_serial(1) == 2


def test_several_changes_are_applied_at_once_if_they_follow_each_other() -> None:
    versions = [zone("".join(f"h{i} A 192.0.2.{n}\n" for i in range(n % 5 * 6)), n) for n in range(1, 9)]
    changes = [old.diff(new) for old, new in itertools.pairwise(versions)]
    made = versions[0].apply(*changes)
    assert content(made) == content(versions[-1])
    assert made.empty == versions[-1].empty
    with pytest.raises(ZoneError, match=r"expected a change of example\. 2, got example\. 3"):
        versions[0].apply(changes[0], changes[2])
