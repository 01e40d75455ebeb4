"""Messages as octets, held against dnspython: names that are odd, replies that are malicious."""

import struct

import dns.message
import dns.name
import dns.rcode
import dns.rrset
import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

import serving
from resolver import HintsError, load_hints
from resolver.message import MalformedError, Record, error, parse_query, parse_reply, query, response, to_text
from resolver.server import Server
from telemetry import Telemetry
from tests.resolver.conftest import COM, EXAMPLE, ROOT, Internet

LABEL = st.binary(min_size=1, max_size=20).filter(lambda label: b"." not in label)
NAMES = st.lists(LABEL, max_size=5).map(lambda labels: dns.name.Name([*labels, b""]))


@given(NAMES, st.sampled_from(["A", "MX", "TYPE65280"]))
def test_a_question_reads_back_as_it_was(name: dns.name.Name, qtype: str) -> None:
    asked = parse_query(dns.message.make_query(name, qtype).to_wire())
    sent = dns.message.from_wire(query(7, asked.qname, qtype))
    assert sent.question[0].name == name
    assert dns.rdatatype.to_text(sent.question[0].rdtype) == qtype
    assert sent.id == 7


@given(NAMES)
def test_a_reply_about_an_odd_name_is_about_that_name(name: dns.name.Name) -> None:
    asked = parse_query(dns.message.make_query(name, "A").to_wire())
    sent = query(7, asked.qname, "A")
    reply = dns.message.make_response(dns.message.from_wire(sent))
    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
    try:
        message = parse_reply(sent, reply.to_wire())
    except MalformedError:
        # dnslib reads labels that are UTF-8 only: such a reply is none, and never another name.
        assert not all(is_utf_8(label) for label in name.labels)
        return
    assert [record.name for record in message.answer] == [asked.qname]
    back = dns.message.from_wire(response(asked, 0, message.answer, (), udp=True))
    assert back.answer[0].name == name


def is_utf_8(label: bytes) -> bool:
    try:
        label.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=100), st.integers(0, 90), st.booleans())
def test_a_changed_reply_is_a_message_or_malformed(noise: bytes, at: int, cut: bool) -> None:
    sent = query(7, "www.example.com.", "MX")
    reply = dns.message.make_response(dns.message.from_wire(sent))
    reply.answer.append(
        dns.rrset.from_text("www.example.com.", 60, "IN", "MX", "1 mail.example.com.", "2 m2.example.com.")
    )
    reply.authority.append(dns.rrset.from_text("example.com.", 60, "IN", "SOA", "ns. hm. 1 2 3 4 5"))
    wire = bytearray(reply.to_wire())
    wire[33 + at : 33 + at + len(noise)] = noise
    try:
        message = parse_reply(sent, bytes(wire[:-1] if cut else wire))
    except MalformedError:
        return
    assert all(record.ttl < 1 << 31 for record in (*message.answer, *message.authority))


@pytest.mark.parametrize("labels", [[b"www.example", b"com"], [b"www", b"example.com"], [b"."]], ids=str)
def test_a_dot_inside_a_label_does_not_become_another_name(labels: list[bytes]) -> None:
    sent = query(7, "evil.com.", "CNAME")
    reply = dns.message.make_response(dns.message.from_wire(sent))
    odd = dns.name.Name([*labels, b""])
    reply.answer += [
        dns.rrset.from_rdata("evil.com.", 60, dns.rdata.from_text("IN", "CNAME", odd.to_text())),
        dns.rrset.from_text(odd, 60, "IN", "A", "192.0.2.66"),
    ]
    assert parse_reply(sent, reply.to_wire()).answer == ()
    assert to_text(dnslib.DNSLabel(labels)) is None


@given(st.binary(min_size=12, max_size=80), st.sampled_from([1, 2, 5, 16]))
def test_errors_read_back(data: bytes, rcode: int) -> None:
    wire = data[:2] + bytes([data[2] & 0x7F]) + data[3:]
    found = dnslib.DNSHeader.parse(dnslib.DNSBuffer(error(wire, rcode)))
    assert (found.id, found.qr, found.rcode) == (struct.unpack_from("!H", wire)[0], 1, rcode & 0xF)


def test_a_large_response_is_readable_beyond_16_kib() -> None:
    asked = parse_query(dns.message.make_query("example.com.", "MX").to_wire())
    records = [
        Record("example.com.", "MX", 60, dnslib.MX(f"host-{i:04d}.b{i // 2}.example.com.", i)) for i in range(1500)
    ]
    (rrset,) = dns.message.from_wire(response(asked, 0, records, (), udp=False)).answer
    assert len({each.exchange for each in rrset}) == 1500


@given(st.text("a. \t;N\nSA1²٣60", max_size=60))
def test_no_text_breaks_the_hints(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "hints"
    path.write_text(text, encoding="utf-8")
    try:
        assert load_hints(path)
    except HintsError:
        return


# --- through the whole resolver -------------------------------------------------------------------------------------------


async def resolved(internet: Internet, qname: dns.name.Name | str, qtype: str = "A") -> dns.message.Message:
    """Ask a new resolver, over TCP so that nothing is cut."""
    server = Server(Telemetry("resolver"), {"a.root.": ROOT}, port=internet.port)
    asked = dns.message.make_query(qname, qtype, use_edns=0)
    reply = server.handle(asked.to_wire(), ("127.0.0.1", 1), "tcp")
    wire = reply if isinstance(reply, (bytes, bytearray)) or reply is None else await reply
    assert wire is not None
    message = dns.message.from_wire(bytes(wire))
    assert asked.is_response(message)
    return message


async def test_a_name_with_a_space_is_resolved(internet: Internet) -> None:
    zone = next(iter(internet.responders[EXAMPLE].zones.values()))
    internet.responders[EXAMPLE].put(zone.replace((b"a b", *zone.apex), "A", 60, [dnslib.A("192.0.2.5")]))
    message = await resolved(internet, dns.name.Name([b"a b", b"example", b"com", b""]))
    assert [each.to_text() for each in message.answer[0]] == ["192.0.2.5"]


async def test_nxdomain_of_an_aliass_target_is_not_believed_of_whoever_owns_the_alias(internet: Internet) -> None:
    def lie(wire: bytes, _: serving.Transport) -> bytes:
        asked = dns.message.from_wire(wire)
        reply = dns.message.make_response(asked)
        reply.flags |= dns.flags.AA
        name = asked.question[0].name
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "www.other.com."))
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    internet.override[EXAMPLE] = lie
    message = await resolved(internet, "x.example.com.")
    assert (message.rcode(), [rrset[0].to_text() for rrset in message.answer]) == (0, ["www.other.com.", "192.0.2.9"])


@pytest.mark.parametrize("reply", ["upward", "sideways", "self"])
async def test_referrals_that_lead_nowhere_end_in_servfail(internet: Internet, reply: str) -> None:
    cut = {"upward": ".", "sideways": "other.com.", "self": "com."}[reply]

    def refer(wire: bytes, _: serving.Transport) -> bytes:
        made = dns.message.make_response(dns.message.from_wire(wire))
        made.authority.append(dns.rrset.from_text(cut, 60, "IN", "NS", "ns.com."))
        return made.to_wire()

    internet.override[COM] = refer
    message = await resolved(internet, "www.example.com.")
    assert message.rcode() == 2
    assert len(internet.asked) <= 3, "one bad referral is enough"


async def test_a_referral_to_a_hundred_names_does_not_become_a_hundred_questions(internet: Internet) -> None:
    def refer(wire: bytes, _: serving.Transport) -> bytes:
        asked = dns.message.from_wire(wire)
        made = dns.message.make_response(asked)
        name = asked.question[0].name
        if name.to_text() == "victim.com.":
            made.authority.append(
                dns.rrset.from_text(name, 60, "IN", "NS", *(f"n{i}.gone{i}.com." for i in range(100)))
            )
        else:
            made.set_rcode(dns.rcode.NXDOMAIN)
            made.flags |= dns.flags.AA
        return made.to_wire(max_size=65_535)

    internet.override[COM] = refer
    message = await resolved(internet, "victim.com.")
    assert message.rcode() == 2
    assert 10 < len(internet.asked) <= 41, "NXNSAttack: MAX_ASKS, and the root"


async def test_a_truncated_answer_whose_tcp_is_shut_is_servfail(internet: Internet) -> None:
    def cut(wire: bytes, transport: serving.Transport) -> bytes | None:
        made = dns.message.make_response(dns.message.from_wire(wire))
        made.flags |= dns.flags.TC
        return made.to_wire() if transport == "udp" else None

    internet.override[EXAMPLE] = cut
    assert (await resolved(internet, "www.example.com.")).rcode() == 2
