"""The core alone: no socket, no clock; arbitrary replies neither break it nor keep it busy for ever."""

from pathlib import Path

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver import Ask, Cache, HintsError, Message, Rank, Record, Resolution, Resolved, load_hints
from resolver.message import MalformedError, parse_query, parse_reply, query

HINTS = {"a.root.": "192.0.2.1", "b.root.": "192.0.2.2"}
ZONES = Path(__file__).parents[2] / "dns" / "zones"


def record(text: str) -> Record:
    (rr,) = dnslib.RR.fromZone(text)
    return Record(str(rr.rname).lower(), dnslib.QTYPE[rr.rtype], rr.ttl, rr.rdata)


NAMES = st.sampled_from([".", "com.", "example.com.", "www.example.com.", "ns.example.com.", "evil.org.", "a.root."])
RECORDS = st.one_of(
    st.builds(lambda n, t: record(f"{n} {t} A 192.0.2.7"), NAMES, st.integers(0, 60)),
    st.builds(lambda n, t, x: record(f"{n} {t} NS {x}"), NAMES, st.integers(0, 60), NAMES),
    st.builds(lambda n, t, x: record(f"{n} {t} CNAME {x}"), NAMES, st.integers(0, 60), NAMES),
    st.builds(lambda n, t: record(f"{n} {t} SOA ns.example.com. hm. 1 2 3 4 5"), NAMES, st.integers(0, 60)),
)
SECTION = st.lists(RECORDS, max_size=4).map(tuple)
MESSAGES = st.builds(
    Message, st.sampled_from([0, 0, 0, 2, 3, 5]), st.booleans(), st.just(value=False), SECTION, SECTION, SECTION
)


@given(st.lists(MESSAGES, max_size=60), st.sampled_from(["A", "NS", "CNAME", "AAAA"]))
def test_any_replies_lead_to_an_end(replies: list[Message], qtype: str) -> None:
    resolution = Resolution("www.example.com.", qtype, Cache(), dict(HINTS))
    for now in range(200):
        step = resolution.step(float(now) / 10)
        if not isinstance(step, Ask):
            return
        if replies:
            resolution.receive(replies.pop(), step, float(now) / 10)
        else:
            resolution.fail(step)
    pytest.fail("200 steps were not enough")


@given(st.binary(max_size=200))
def test_bytes_are_a_reply_or_malformed(data: bytes) -> None:
    sent = query(0x1234, "www.example.com.", "A")
    for received in (data, sent[:2] + b"\x84\0" + sent[4:28] + data):
        try:
            parse_reply(sent, received)
        except MalformedError:
            continue


@given(st.binary(min_size=12, max_size=120))
def test_bytes_are_a_query_or_malformed(data: bytes) -> None:
    try:
        parse_query(data)
    except MalformedError:
        return


def test_glue_does_not_replace_an_answer_and_is_no_answer() -> None:
    cache = Cache()
    cache.put([record("ns.example.com. 60 A 192.0.2.66")], Rank.GLUE, 0.0)
    assert cache.get("ns.example.com.", "A", 1.0) is None
    cache.put([record("ns.example.com. 60 A 192.0.2.7")], Rank.AUTHORITATIVE, 1.0)
    cache.put([record("ns.example.com. 60 A 192.0.2.66")], Rank.GLUE, 2.0)
    entry = cache.get("ns.example.com.", "A", 3.0)
    assert entry is not None
    assert [r.text for r in entry.records] == ["192.0.2.7"]
    assert entry.at(31.0)[0].ttl == 30
    assert cache.get("ns.example.com.", "A", 61.0) is None


def test_an_alias_ages_while_what_it_leads_to_is_looked_for() -> None:
    resolution = Resolution("www.example.com.", "A", Cache(), dict(HINTS))
    asked = resolution.step(0.0)
    assert isinstance(asked, Ask)
    alias = record("www.example.com. 20 CNAME www.example.org.")
    assert resolution.receive(Message(0, True, False, (alias,), (), ()), asked, 0.0) == "alias"
    asked = resolution.step(3.0)
    assert isinstance(asked, Ask)
    address = record("www.example.org. 20 A 192.0.2.7")
    assert resolution.receive(Message(0, True, False, (address,), (), ()), asked, 3.0) == "answer"
    found = resolution.step(3.0)
    assert isinstance(found, Resolved)
    assert [each.ttl for each in found.answer] == [17, 20]


def test_the_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = Cache(max_entries=2)
    for name in ("a.", "b."):
        cache.put([record(f"{name} 60 A 192.0.2.7")], Rank.ANSWER, 0.0)
    cache.get("a.", "A", 1.0)
    cache.put([record("c. 60 A 192.0.2.7")], Rank.ANSWER, 0.0)
    assert [key[0] for key, _ in cache.entries(1.0)] == ["a.", "c."]


def test_the_labs_own_hints() -> None:
    assert load_hints(ZONES / "root.hints") == {
        "a.root-servers.test.": "198.19.10.53",
        "b.root-servers.test.": "198.19.11.53",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n", ":1: expected NAME TTL NS|A|AAAA VALUE, got 'x'"),
        ("com. 60 NS a.\n", ":1: expected NS records of the root"),
        (". 60 NS a.\na. 60 A 1.2.3\n", ":2: expected an IPv4 address"),
        (". 60 NS a.\n", ": expected at least one root server"),
    ],
)
def test_bad_hints_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hints"
    path.write_text(text)
    with pytest.raises(HintsError) as error:
        load_hints(path)
    assert message in str(error.value)
