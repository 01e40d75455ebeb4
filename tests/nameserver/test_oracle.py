"""Tests that compare master files and messages with an independent library (dnspython), byte for byte."""

import contextlib

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import Name
from nameserver import NameServerError, Responder, Zone, ZoneFileError, parse

HEAD = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
EXAMPLE, APEX = dns.name.from_text("example."), Name.from_text("example.")


def ask(zone: Zone, qname: str, qtype: str, *, udp: bool = False, **options) -> dns.message.Message:
    query = dns.message.make_query(qname, qtype, **{"use_edns": 0, "payload": 1232, **options})
    response = Responder({zone.apex: zone}).respond(query.to_wire(), udp=udp)
    assert response is not None
    message = dns.message.from_wire(response.wire)
    assert query.is_response(message)
    return message


def rdata_of(zone: Zone, name: str, rdtype: str) -> set[str]:
    """Return the RDATA in our response, as dnspython formats it."""
    return {each.to_text() for rrset in ask(zone, name, rdtype).answer for each in rrset}


STRINGS = st.binary(max_size=40)
LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
U16 = st.integers(0, 65535)
RDATA = st.one_of(
    st.lists(STRINGS, min_size=1, max_size=3).map(
        lambda s: ("TXT", dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, s).to_text())
    ),
    st.ip_addresses(v=4).map(lambda a: ("A", str(a))),
    st.ip_addresses(v=6).map(lambda a: ("AAAA", str(a))),
    st.tuples(U16, LABEL).map(lambda p: ("MX", f"{p[0]} {p[1]}.example.")),
    st.tuples(U16, U16, U16, LABEL).map(lambda p: ("SRV", f"{p[0]} {p[1]} {p[2]} {p[3]}.other.")),
    LABEL.map(lambda n: ("CNAME", f"{n}.other.")),
    st.tuples(st.integers(0, 255), LABEL.filter(str.isalnum), st.text('ab;"\\ .', max_size=12)).map(
        lambda p: ("CAA", '{} {} "{}"'.format(p[0], p[1], p[2].replace("\\", "\\\\").replace('"', '\\"')))
    ),
)


@given(RDATA)
def test_rdata_is_encoded_as_dnspython_encodes_it(record: tuple[str, str]) -> None:
    rdtype, text = record
    theirs = dns.rdata.from_text("IN", rdtype, text).to_wire()
    zone = parse("example.", f"{HEAD}x 60 IN {rdtype} {text}\n")
    (rrset,) = ask(zone, "x.example.", rdtype).answer
    assert [each.to_wire() for each in rrset] == [theirs]


@given(st.lists(st.tuples(LABEL, RDATA, st.sampled_from(["{o} {t} IN {r}", "{o} IN {t} {r}", "{o} {r}"])), max_size=5))
def test_a_zone_has_the_records_that_dnspython_reads(entries) -> None:
    lines = [form.format(o=f"n{i}-{owner}", t=30, r=" ".join(data)) for i, (owner, data, form) in enumerate(entries)]
    text = HEAD + "".join(line + "\n" for line in lines)
    theirs = dns.zone.from_text(text, EXAMPLE, relativize=False, check_origin=False)
    ours = parse("example.", text)
    for name, dataset in theirs.iterate_rdatasets():
        rdtype = dns.rdatatype.to_text(dataset.rdtype)
        (rrset,) = ask(ours, name.to_text(), rdtype).answer
        assert {each.to_wire() for each in rrset} == {each.to_wire() for each in dataset}
        assert rrset.ttl == dataset.ttl


@given(st.text('abAN²٣é \t\n\r;()"\\$@.1*0x-', max_size=120))
def test_no_text_of_any_script_breaks_the_parser(text: str) -> None:
    for each in (text, HEAD + text, HEAD + "x IN TXT " + text, HEAD + "x " + text + " IN A 192.0.2.1"):
        with contextlib.suppress(NameServerError):
            parse("example.", each)


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (r'x TXT "\200\255"', b"\xc8\xff"),
        (r"x TXT a\;b", b"a;b"),
        (r'x TXT "say \"hi\" \\"', rb'say "hi" \ '.rstrip()),
        ("x TXT é", "é".encode()),
        ('x TXT ""', b""),
    ],
    ids=["digits", "bare-escape", "quotes", "utf-8", "empty"],
)
def test_the_bytes_of_a_text(line: str, content: bytes) -> None:
    (rrset,) = ask(parse("example.", HEAD + line + "\n"), "x.example.", "TXT").answer
    assert rrset[0].strings == (content,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r'x TXT "\300"', "expected a character or three digits up to 255 after the backslash"),
        ("x TXT " + "a" * 256, "expected texts of at most 255 bytes, got one of 256"),
        ("x ² A 192.0.2.1", "expected a record type such as A"),
        ("x MX ² mail", "expected a number from 0 to 65535, got '²'"),
        ("x CAA 0 is-sue a", "expected a tag of letters and digits"),
    ],
    ids=["byte", "long", "ttl", "number", "tag"],
)
def test_values_that_are_out_of_range_are_refused(line: str, message: str) -> None:
    with pytest.raises(ZoneFileError, match=f"^z:5: .*{message}"):
        parse("example.", HEAD + line + "\n", "z")


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [100, 900, 2000])
def test_names_beyond_the_reach_of_a_compression_pointer_are_whole(count: int) -> None:
    lines = "".join(f"@ MX {i} host-{i:04d}.b{i // 2}.example.\n" for i in range(count))
    message = ask(parse("example.", HEAD + lines), "example.", "MX")
    (rrset,) = message.answer
    assert {f"{each.preference} {each.exchange}" for each in rrset} == {
        f"{i} host-{i:04d}.b{i // 2}.example." for i in range(count)
    }


def test_a_referral_whose_glue_does_not_fit_is_truncated() -> None:
    servers = "".join(f"sub NS ns{i:02d}.sub\nns{i:02d}.sub A 192.0.2.{i}\n" for i in range(40))
    zone = parse("example.", HEAD + servers)
    small = ask(zone, "www.sub.example.", "A", udp=True)
    assert small.flags & dns.flags.TC, "RFC 9471 section 3.1"
    whole = ask(zone, "www.sub.example.", "A")
    assert len(whole.additional) == 40
    assert not whole.flags & dns.flags.TC


def test_optional_additional_data_is_left_out_without_truncation() -> None:
    mail = "".join(f"@ MX {i} m{i:02d}\nm{i:02d} A 192.0.2.{i}\n" for i in range(45))
    message = ask(parse("example.", HEAD + mail), "example.", "MX", udp=True)
    assert not message.flags & dns.flags.TC
    assert (len(message.answer[0]), message.additional) == (45, [])


@pytest.mark.parametrize(
    ("qname", "qtype", "options", "rcode"),
    [
        ("www.other.", "A", {}, "REFUSED"),
        ("example.", "AXFR", {}, "REFUSED"),
        ("example.", "A", {"rdclass": "CH"}, "REFUSED"),
    ],
    ids=["zone", "transfer", "class"],
)
def test_a_refusal_has_edns_when_the_query_has(qname, qtype, options, rcode) -> None:
    message = ask(parse("example.", HEAD), qname, qtype, **options)
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert message.edns == 0, "RFC 6891 section 6.1.1"


@given(st.binary(max_size=60), st.integers(0, 40), st.booleans())
def test_a_changed_query_gets_an_answer_that_reads_back(noise: bytes, at: int, udp: bool) -> None:
    wire = bytearray(dns.message.make_query("www.example.", "A", use_edns=0).to_wire())
    wire[at : at + len(noise)] = noise
    response = Responder({APEX: parse("example.", HEAD)}).respond(bytes(wire), udp=udp)
    if response is None:
        return
    with contextlib.suppress(dns.exception.DNSException):
        dns.message.from_wire(bytes(wire))
        dns.message.from_wire(response.wire)
    assert response.wire[:2] == bytes(wire[:2])
    assert response.wire[2] & 0x80
    assert len(response.wire) <= (1232 if udp else 65_535)
