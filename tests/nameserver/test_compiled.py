"""Tests that prebuilt answers equal the reference byte for byte, for every name, type, spelling and EDNS setting."""

import random
import struct
from pathlib import Path

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsmessage import Name, Query, decode_query, encode_opt, rdtypes
from nameserver import Responder, Zone, load, parse

ZONES = Path(__file__).parents[2] / "dns" / "zones"
HEAD = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
RICH = (
    HEAD
    + """
@ IN MX 10 mail
@ IN MX 20 mail.sub
mail IN A 192.0.2.2
mail IN AAAA 2001:db8::2
alias IN CNAME mail
deeper IN CNAME alias
away IN CNAME www.other.
cutalias IN CNAME x.sub
gone IN CNAME nothing
wildalias IN CNAME any.wild
loop IN CNAME pool
pool IN CNAME loop
*.wild IN A 192.0.2.3
*.wild IN MX 5 mail
*.wild IN MX 6 x.wild
*.wildcname IN CNAME mail
*.wildloop IN CNAME a.wildloop
a.*.star IN A 192.0.2.4
sub IN NS ns.sub
sub IN NS ns.other.
sub IN DS 1 13 2 00
ns.sub IN A 192.0.2.5
mail.sub IN A 192.0.2.6
deep.sub IN NS ns.deep.sub
ns.deep.sub IN A 192.0.2.7
bare IN NS ns.elsewhere.
a.b.c IN TXT text
h IN HTTPS 1 . alpn=h2
s IN SPF "v=spf1 -all"
e IN EUI48 00-00-5e-00-53-2a
srv IN SRV 0 0 1 mail
d IN DNAME other.test.
long IN TXT "0123456789012345678901234567890123456789012345678901234567890123456789"
"""
)
RICH += "".join(f'big IN TXT "{i} {"x" * 100}"\nwide IN NS n{i}.wide\nn{i}.wide IN A 192.0.2.9\n' for i in range(20))
QTYPES = [1, 2, 5, 6, 15, 16, 28, 33, 39, 43, 46, 64, 65, 67, 97, 99, 108, 252, 255, 65280]


def spelled(wire: bytes, rng: random.Random) -> bytes:
    """Return a name in random upper and lower case (draft-vixie-dnsext-dns0x20)."""
    return bytes(c ^ 0x20 if 0x41 <= c & 0xDF <= 0x5A and rng.random() < 0.5 else c for c in wire)


def queries(qname: Name, qtype: int, rng: random.Random) -> list[bytes]:
    question = spelled(qname.wire, rng) + struct.pack("!HH", qtype, 1)
    flags = rng.choice([0, 0x0100, 0x0110, 0x0120])
    cookie, padding = struct.pack("!HH8s", 10, 8, b"12345678"), struct.pack("!HH40x", 12, 40)
    small, large = (struct.pack("!BHHIH", 0, 41, size, 0, 0) for size in (200, 4096))
    heads = [struct.pack("!6H", rng.getrandbits(16), flags, 1, 0, 0, n) for n in (0, 1)]
    opts = [encode_opt(), encode_opt(dnssec_ok=True), encode_opt(options=cookie + padding), small, large]
    return [heads[0] + question, *(heads[1] + question + opt for opt in opts)]


def check(responder: Responder, qname: Name, qtype: int, rng: random.Random) -> int:
    """Compare every variant of one query with the reference; return the number of prebuilt answers."""
    finished = 0
    for wire in queries(qname, qtype, rng):
        query = decode_query(wire)
        for udp in (True, False):
            response = responder.respond(wire, udp=udp)
            assert response is not None
            assert response.wire == responder.reference(query, query.limit(udp=udp)).wire, (str(qname), qtype)
            finished += responder.finished(wire, udp=udp) is not None
    return finished


def interesting(zone: Zone) -> list[Name]:
    """Return every name of a zone, the parent of each, and names next to and below each."""
    owners = {rrset.name for rrset in zone}
    owners |= {Name(b"\1x" + owner.wire) for owner in owners} | {owner.parent() for owner in owners} | {zone.apex}
    owners |= {Name(b"\1x\1y" + zone.apex.wire), Name(b"\2ns\2ns" + zone.apex.wire), Name(b"\1*" + zone.apex.wire)}
    return sorted(owner for owner in owners if owner.is_below(zone.apex) and len(owner.wire) < 250)


@pytest.mark.parametrize("origin", [".", "com.", "test.", "example.com.", "news.example.com.", "rich."])
def test_every_name_and_type_of_each_zone(origin: str) -> None:
    file = ZONES / f"{'root' if origin == '.' else origin.rstrip('.')}.zone"
    zone = parse("example.", RICH) if origin == "rich." else load(origin, file)
    responder, rng = Responder({zone.apex: zone}), random.Random(1)
    finished = total = 0
    for qname in interesting(zone):
        for qtype in QTYPES:
            finished += check(responder, qname, qtype, rng)
            total += 12
    assert finished > total / 2, "most queries get a finished answer"


def test_parent_and_child_on_one_server_and_ds_belongs_to_the_parent() -> None:
    parent, child = parse("par.test.", HEAD + "sub NS ns.sub\nns.sub A 192.0.2.9\n"), parse("sub.par.test.", HEAD)
    responder, rng = Responder({zone.apex: zone for zone in (parent, child)}), random.Random(1)
    for qname in {*interesting(parent), *interesting(child)}:
        for qtype in QTYPES:
            check(responder, qname, qtype, rng)
    asked = dns.message.make_query("sub.par.test.", "DS")
    response = responder.respond(asked.to_wire(), udp=True)
    assert response is not None
    message = dns.message.from_wire(response.wire)
    assert (message.rcode(), message.authority[0].name.to_text()) == (0, "par.test.")


LABEL = st.sampled_from(["a", "b", "*", "ns", "x"])
OWNER = st.lists(LABEL, min_size=0, max_size=3).map(".".join)
DATA = st.one_of(
    st.sampled_from(["A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1", "TXT t", "HTTPS 1 .", "DS 1 13 2 00"]),
    st.tuples(st.sampled_from(["NS", "CNAME", "MX 1", "SRV 1 2 3", "DNAME"]), OWNER).map(
        lambda p: f"{p[0]} {p[1] or '@'}"
    ),
)


@given(
    st.lists(st.tuples(OWNER, DATA), max_size=12),
    st.lists(st.tuples(OWNER, st.sampled_from(QTYPES)), max_size=12),
    st.integers(),
)
@settings(max_examples=150, deadline=None)
def test_random_zones(entries, asked, seed: int) -> None:
    aliases = {owner for owner, data in entries if data.startswith(("CNAME", "DNAME"))}
    kept, taken = [], set[str]()
    for owner, data in entries:
        alone = owner in aliases
        below = any(owner.endswith("." + alias) or not alias for alias in aliases)
        if owner and not below and not (alone and owner in taken) and data.startswith(("CNAME", "DNAME")) >= alone:
            kept.append(f"{owner} {data}\n")
            taken.add(owner)
    if any(line.startswith("ns CNAME") or " DNAME" in line for line in kept):
        kept = [line for line in kept if not line.startswith("ns ") and not line.split(" ", 1)[0].endswith(".ns")]
    try:
        zone = parse("example.", HEAD + "".join(kept))
    except Exception as error:
        if "expected nothing" in str(error):
            return
        raise
    responder, rng = Responder({zone.apex: zone}), random.Random(seed)
    for owner, qtype in asked:
        check(responder, Name.from_text(owner or "@", zone.apex), qtype, rng)
    for rrset in zone:
        check(responder, rrset.name, rrset.rdtype, rng)


def test_dname_is_followed_and_its_cname_synthesised() -> None:
    responder = Responder({(zone := parse("example.", RICH)).apex: zone})
    response = responder.respond(dns.message.make_query("a.b.d.example.", "A").to_wire(), udp=True)
    assert response is not None
    lines = [rrset.to_text() for rrset in dns.message.from_wire(response.wire).answer]
    assert lines == ["d.example. 60 IN DNAME other.test.", "a.b.d.example. 60 IN CNAME a.b.other.test."]


def test_padded_queries_do_not_make_the_server_grow() -> None:
    responder = Responder({(zone := parse("example.", RICH)).apex: zone})
    before = len(responder.answers)
    for i in range(100):
        option = struct.pack("!HHI", 12, 60_004, i) + bytes(60_000)
        wire = struct.pack("!6H", i, 0, 1, 0, 0, 1) + b"\2ns\7example\0\0\1\0\1" + encode_opt(options=option)
        assert responder.respond(wire, udp=False) is not None
    assert len(responder.answers) == before


def test_a_malformed_option_is_a_format_error() -> None:
    responder = Responder({(zone := parse("example.", RICH)).apex: zone})
    wire = struct.pack("!6H", 1, 0, 1, 0, 0, 1) + b"\2ns\7example\0\0\1\0\1" + encode_opt(options=b"\0\x0a\0\x09short")
    response = responder.respond(wire, udp=True)
    assert response is not None
    assert response.rcode == 1


def test_the_reference_never_uses_finished_answers() -> None:
    zone = parse("example.", RICH)
    responder = Responder({zone.apex: zone})
    responder.answers.entries.clear()
    question = Name.from_text("ns.example.").wire + b"\0\1\0\1"
    query = Query(1, 0, question, Name.from_text("ns.example."), rdtypes.A, 1, None)
    assert bytes([192, 0, 2, 1]) in responder.reference(query, 512).wire
