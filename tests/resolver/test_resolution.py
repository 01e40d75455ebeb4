"""Tests for `Resolution` and the cache without sockets or a clock, including arbitrary replies."""

from pathlib import Path

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

import serving
from dnsmessage import Message, Name, Record, rdtypes
from dnsmessage.message import AA
from nameserver import Responder, parse
from resolver import Ask, Cache, HintsError, Outcome, Rank, Resolution, Resolved, load_hints
from resolver.server import Server
from telemetry import Telemetry

HINTS = {Name.from_text("a.root."): "192.0.2.1", Name.from_text("b.root."): "192.0.2.2"}
ZONES = Path(__file__).parents[2] / "dns" / "zones"
WWW = Name.from_text("www.example.com.")


def record(text: str) -> Record:
    """Return the record in *text*, which has the form ``owner ttl type rdata``."""
    owner, ttl, mnemonic, rest = text.split(None, 3)
    data = dns.rdata.from_text("IN", mnemonic, rest).to_wire()
    assert data is not None
    return Record(Name.from_text(owner), rdtypes.from_text(mnemonic), int(ttl), data)


NAMES = st.sampled_from([".", "com.", "example.com.", "www.example.com.", "ns.example.com.", "evil.org.", "a.root."])
RECORDS = st.one_of(
    st.builds(lambda n, t: record(f"{n} {t} A 192.0.2.7"), NAMES, st.integers(0, 60)),
    st.builds(lambda n, t, x: record(f"{n} {t} NS {x}"), NAMES, st.integers(0, 60), NAMES),
    st.builds(lambda n, t, x: record(f"{n} {t} CNAME {x}"), NAMES, st.integers(0, 60), NAMES),
    st.builds(lambda n, t: record(f"{n} {t} SOA ns.example.com. hm. 1 2 3 4 5"), NAMES, st.integers(0, 60)),
)
SECTION = st.lists(RECORDS, max_size=4).map(tuple)
MESSAGES = st.builds(Message, st.sampled_from([0, 0, 0, 2, 3, 5]), st.sampled_from([0, AA]), SECTION, SECTION, SECTION)


@given(st.lists(MESSAGES, max_size=60), st.sampled_from([1, 2, 5, 28, 43]))
def test_any_replies_lead_to_an_end(replies: list[Message], qtype: int) -> None:
    resolution = Resolution(WWW, qtype, Cache(), dict(HINTS))
    for now in range(200):
        step = resolution.step(float(now) / 10)
        if not isinstance(step, Ask):
            return
        if replies:
            resolution.receive(replies.pop(), step, float(now) / 10)
        else:
            resolution.fail(step)
    pytest.fail("200 steps were not enough")


def test_glue_does_not_replace_an_answer_and_is_no_answer() -> None:
    cache, server = Cache(), Name.from_text("ns.example.com.")
    cache.put([record("ns.example.com. 60 A 192.0.2.66")], Rank.GLUE, 0.0)
    assert cache.get(server, rdtypes.A, 1.0) is None
    cache.put([record("ns.example.com. 60 A 192.0.2.7")], Rank.AUTHORITATIVE, 1.0)
    cache.put([record("ns.example.com. 60 A 192.0.2.66")], Rank.GLUE, 2.0)
    entry = cache.get(server, rdtypes.A, 3.0)
    assert entry is not None
    assert [r.rdata for r in entry.records] == [bytes([192, 0, 2, 7])]
    assert entry.left(31.0) == 30
    assert cache.get(server, rdtypes.A, 61.0) is None


def test_an_alias_ages_while_its_target_is_looked_up() -> None:
    resolution = Resolution(WWW, rdtypes.A, Cache(), dict(HINTS), minimise=False)
    asked = resolution.step(0.0)
    assert isinstance(asked, Ask)
    alias = record("www.example.com. 20 CNAME www.example.org.")
    assert resolution.receive(Message(0, AA, (alias,)), asked, 0.0) is Outcome.ALIAS
    asked = resolution.step(3.0)
    assert isinstance(asked, Ask)
    address = record("www.example.org. 20 A 192.0.2.7")
    assert resolution.receive(Message(0, AA, (address,)), asked, 3.0) is Outcome.ANSWER
    found = resolution.step(3.0)
    assert isinstance(found, Resolved)
    assert [each.left(3.0) for each in found.answer] == [17, 20]


def test_the_least_recently_used_entry_is_evicted() -> None:
    cache = Cache(max_entries=2)
    for name in ("a.", "b."):
        cache.put([record(f"{name} 60 A 192.0.2.7")], Rank.ANSWER, 0.0)
    cache.get(Name.from_text("a."), rdtypes.A, 1.0)
    cache.put([record("c. 60 A 192.0.2.7")], Rank.ANSWER, 0.0)
    assert [str(Name(key)) for (key, _), _ in cache.entries(1.0)] == ["a.", "c."]


def test_the_labs_own_hints() -> None:
    assert {str(name): address for name, address in load_hints(ZONES / "root.hints").items()} == {
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
def test_errors_in_hints_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hints"
    path.write_text(text)
    with pytest.raises(HintsError) as error:
        load_hints(path)
    assert message in str(error.value)


def test_hints_have_ipv6_addresses_if_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "hints"
    path.write_text(". 60 NS a.\n. 60 NS b.\na. 60 A 192.0.2.1\na. 60 AAAA 2001:db8::1\nb. 60 AAAA 2001:DB8:0::2\n")
    a, b = Name.from_text("a."), Name.from_text("b.")
    assert load_hints(path) == {a: "192.0.2.1"}
    assert load_hints(path, ipv6=True) == {a: "192.0.2.1", b: "2001:db8::2"}
    path.write_text(". 60 NS a.\na. 60 AAAA 192.0.2.1\n")
    with pytest.raises(HintsError, match=":2: expected an IPv6 address"):
        load_hints(path, ipv6=True)


@pytest.mark.parametrize(("ipv6", "asked"), [(False, {"192.0.2.53"}), (True, {"192.0.2.53", "2001:db8::53"})])
def test_ipv6_addresses_in_glue_are_asked_if_they_are_wanted(ipv6: bool, asked: set[str]) -> None:
    glue = (record("ns.com. 60 A 192.0.2.53"), record("ns.com. 60 AAAA 2001:db8::53"))
    referral = Message(0, 0, (), (record("com. 60 NS ns.com."),), glue)
    cache, seen = Cache(), set()
    for _ in range(2):  # the second resolution finds the glue in the cache
        resolution = Resolution(WWW, 1, cache, dict(HINTS), ipv6=ipv6)
        while isinstance(step := resolution.step(0.0), Ask):
            if step.address in HINTS.values():
                resolution.receive(referral, step, 0.0)
            else:
                seen.add(step.address)
                resolution.fail(step)
    assert seen == asked


async def test_name_servers_are_asked_over_ipv6() -> None:
    zone = parse(".", "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN AAAA ::1\nwww IN A 192.0.2.7\n")
    responder = Responder({zone.apex: zone})

    def handle(wire: bytes, _client: object, transport: str) -> bytes | None:
        response = responder.respond(wire, udp=transport == "udp")
        return None if response is None else response.wire

    listener = await serving.start(("::1", 0), handle)
    try:
        server = Server(Telemetry("resolver"), {Name.from_text("ns."): "::1"}, port=listener.address[1], ipv6=True)
        outcome = await server.resolve(Name.from_text("www."), rdtypes.A)
        assert isinstance(outcome, Resolved)
        assert [r.rdata for entry in outcome.answer for r in entry.records] == [bytes([192, 0, 2, 7])]
    finally:
        await listener.close()
