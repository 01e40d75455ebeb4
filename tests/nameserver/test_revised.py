"""Tests that recompiling a zone after a change gives the same result as compiling the new zone from scratch."""

import random

import pytest

from nameserver import NameServerError, Responder, Zone, compiled, parse
from nameserver.changes import Change, next_serial, with_serial
from nameserver.compiled import compile_zone, recompile_zone
from tests.nameserver.test_compiled import QTYPES, check, interesting
from tests.nameserver.test_peers import make_zone


def some_change(rng: random.Random, old: Zone) -> Change:
    """Return a random subset of the difference between *old* and another random zone."""
    whole = old.diff(parse("example.", make_zone(rng)))
    soa = whole.old_soa
    newer = soa._replace(rdata=with_serial(soa.rdata, next_serial(old.serial)))
    few = rng.randint(1, 4)
    deleted = rng.sample(whole.deleted, min(few, len(whole.deleted)))
    return Change(soa, newer, tuple(deleted), tuple(rng.sample(whole.added, min(few, len(whole.added)))))


@pytest.mark.parametrize("seed", range(6))
def test_a_hundred_changes_give_the_answers_of_the_whole_zone(seed: int) -> None:
    rng = random.Random(seed)
    zone = parse("example.", make_zone(rng))
    responder = Responder({zone.apex: zone})
    reused = 0
    for number in range(100):
        try:
            new = zone.apply(some_change(rng, zone))
        except NameServerError:  # the result is not a valid zone: data next to a CNAME, or no NS
            continue
        fresh = Zone(new.apex, dict(new.rrsets))
        assert (new.empty, new.cuts, new.dnames) == (fresh.empty, fresh.cuts, fresh.dnames)
        reused += new.cuts is zone.cuts
        zone = new
        responder.put(zone)
        ours, theirs = responder._compiled[zone.apex.key].answers, compile_zone(fresh).answers
        assert {q: ours.get(q) for q in (*ours.entries, *ours.others)} == {
            q: theirs.get(q) for q in (*theirs.entries, *theirs.others)
        }
        if number % 25 == 0:
            for qname in interesting(zone):
                check(responder, qname, rng.choice(QTYPES), rng)
    assert reused > 10, "most changes do not touch a delegation"


def test_the_old_version_stays_as_it_was() -> None:
    zone = parse("example.", make_zone(random.Random(3)))
    made = compile_zone(zone)
    before = {q: made.answers.get(q) for q in made.answers.entries}
    new = zone.replace(zone.apex, 16, 5, [b"\4text"])
    again = recompile_zone(made, new)
    assert {q: made.answers.get(q) for q in made.answers.entries} == before
    assert again.answers.get(zone.apex.key + b"\0\x10\0\1") is not None


def test_many_changes_do_not_make_a_server_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SLACK", 10_000)
    zone = parse("example.", make_zone(random.Random(4)))
    responder = Responder({zone.apex: zone})
    for number in range(400):
        zone = zone.replace(zone.apex, 16, 5, [b"\xc8" + bytes([number & 255]) * 200])
        responder.put(zone)
    assert responder.answers.size < 30_000
    assert len(responder.answers._chunks) == 1
