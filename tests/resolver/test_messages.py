"""Tests for the resolver with unusual, malicious or malformed replies from name servers."""

import asyncio
import struct
from collections.abc import Awaitable

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

import serving
from dnsmessage import Name, question_end
from resolver import HintsError, load_hints
from resolver.server import Server
from telemetry import Telemetry
from tests.resolver.conftest import COM, EXAMPLE, OTHER, ROOT, Internet

HINTS = {Name.from_text("a.root."): ROOT}


@given(st.text("a. \t;N\nSA1²٣60", max_size=60))
def test_no_text_breaks_the_hints(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "hints"
    path.write_text(text, encoding="utf-8")
    try:
        assert load_hints(path)
    except HintsError:
        return


async def resolved(internet: Internet, qname: dns.name.Name | str, qtype: str = "A") -> dns.message.Message:
    """Return the reply of a new resolver, over TCP to avoid truncation."""
    return await ask(Server(Telemetry("resolver"), HINTS, port=internet.port), qname, qtype)


async def ask(server: Server, qname: dns.name.Name | str, qtype: str = "A", **options) -> dns.message.Message:
    asked = dns.message.make_query(qname, qtype, **{"use_edns": 0, **options})
    reply = server.handle(asked.to_wire(), ("127.0.0.1", 1), "tcp")
    wire = await reply if isinstance(reply, Awaitable) else reply
    assert isinstance(wire, (bytes, bytearray))
    message = dns.message.from_wire(bytes(wire))
    assert asked.is_response(message)
    return message


async def test_a_server_cannot_deny_an_alias_target_outside_its_zone(internet: Internet) -> None:
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
async def test_referrals_that_do_not_lead_down_end_in_servfail(internet: Internet, reply: str) -> None:
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
        if name.to_text().lower() == "victim.com.":
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
    assert 5 < len(internet.asked) <= 10, "NXNSAttack: MAX_SERVER_LOOKUPS, and the way to the referral"


async def test_a_truncated_answer_without_a_reply_over_tcp_is_servfail(internet: Internet) -> None:
    def cut(wire: bytes, transport: serving.Transport) -> bytes | None:
        made = dns.message.make_response(dns.message.from_wire(wire))
        made.flags |= dns.flags.TC
        return made.to_wire() if transport == "udp" else None

    internet.override[EXAMPLE] = cut
    assert (await resolved(internet, "www.example.com.")).rcode() == 2


# --- unusual names, types and RDATA -----------------------------------------------------------------------------------


def record(owner: bytes, rdtype: int, rdata: bytes, ttl: int = 300) -> bytes:
    return owner + struct.pack("!HHIH", rdtype, 1, ttl, len(rdata)) + rdata


def raw(wire: bytes, *records: bytes) -> bytes:
    """Return a reply to the query *wire* with the given encoded records."""
    end = question_end(wire)
    return wire[:2] + struct.pack("!5H", 0x8400, 1, len(records), 0, 0) + wire[12:end] + b"".join(records)


PTR = b"\xc0\x0c"


@pytest.mark.parametrize(
    ("qtype", "rdata", "text"),
    [
        pytest.param("CAA", b"\0\5issue\xff\xfe", '0 issue "\\255\\254"', id="caa-not-utf-8"),
        pytest.param("TYPE65280", b"", "\\# 0", id="empty"),
        pytest.param("SMIMEA", b"\3\1\1" + b"\xab" * 32, "3 1 1 " + "ab" * 32, id="smimea"),
        pytest.param("AFSDB", b"\0\1" + PTR, "1 odd.example.com.", id="pointer-in-afsdb"),
        pytest.param("KX", b"\0\1" + PTR, "1 odd.example.com.", id="pointer-in-kx"),
        pytest.param("RT", b"\0\1" + PTR, "1 odd.example.com.", id="pointer-in-rt"),
    ],
)
async def test_rdata_is_passed_on(internet: Internet, qtype: str, rdata: bytes, text: str) -> None:
    rdtype = dns.rdatatype.from_text(qtype)
    asked: list[int] = []

    def answer(wire: bytes, _: serving.Transport) -> bytes:
        asked.append(dns.message.from_wire(wire).question[0].rdtype)
        return raw(wire, record(PTR, rdtype, rdata))

    internet.override[EXAMPLE] = answer
    message = await resolved(internet, "odd.example.com.", qtype)
    assert (message.answer[0].rdtype, message.answer[0][0].to_text().strip(), asked) == (rdtype, text, [rdtype])


@pytest.mark.parametrize("label", [b"m\xfcller", b"a.b", b"a b", b"\0"], ids=str)
async def test_a_label_may_have_any_bytes(internet: Internet, label: bytes) -> None:
    internet.override[EXAMPLE] = lambda wire, _: raw(wire, record(PTR, 1, b"\xc0\0\2\1"))
    name = dns.name.Name([label, b"example", b"com", b""])
    (rrset,) = (await resolved(internet, name)).answer
    assert (rrset.name, rrset[0].to_text()) == (name, "192.0.2.1")


async def test_a_dot_inside_a_label_does_not_become_another_name(internet: Internet) -> None:
    """Regression test for an attack on caches that store names as text (Jeitner and Shulman, USENIX Security 2021)."""
    odd = b"\x09www.other\3com\0"
    internet.override[EXAMPLE] = lambda wire, _: raw(wire, record(PTR, 5, odd), record(odd, 1, b"\xcb\0\x71\x42"))
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    await ask(server, "evil.example.com.")
    assert [each.to_text() for each in (await ask(server, "www.other.com.")).answer[0]] == ["192.0.2.9"]


async def test_a_server_that_rejects_edns_is_asked_without_and_from_then_on(internet: Internet) -> None:
    queries: list[bool] = []

    def answer(wire: bytes, _: serving.Transport) -> bytes:
        edns = dns.message.from_wire(wire).edns >= 0
        queries.append(edns)
        return wire[:2] + b"\x80\x01" + bytes(8) if edns else raw(wire, record(PTR, 1, b"\xc0\0\2\1"))

    internet.override[EXAMPLE] = answer
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    for name in ("a.example.com.", "b.example.com."):
        assert (await ask(server, name)).rcode() == 0
    assert queries == [True, False, False]


async def test_a_reply_that_cannot_be_read_is_that_servers_failure_at_once(internet: Internet) -> None:
    internet.override[EXAMPLE] = lambda wire, _: raw(wire, record(PTR, 28, b"\xc0\0\2\1"))
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    async with asyncio.timeout(0.7):  # shorter than one query time-out
        message = await ask(server, "x.example.com.", "AAAA")
    assert message.rcode() == dns.rcode.SERVFAIL
    assert [hop.kind for hop in server.trails[-1].hops][-1] == "lame"
    assert not server.upstream.servers.known[EXAMPLE].timeouts, "it did answer"


# --- delegations ------------------------------------------------------------------------------------------------------


async def test_a_cached_delegation_that_leads_nowhere_is_dropped_and_the_parent_asked(internet: Internet) -> None:
    """One server's address has expired, and the other's name does not exist; the parent still has the glue."""
    clock = 1000.0
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, now=lambda: clock)

    def refer(wire: bytes, _: serving.Transport) -> bytes:
        query = dns.message.from_wire(wire)
        made = dns.message.make_response(query)
        if query.question[0].name.to_text().endswith("gone.com."):
            made.set_rcode(dns.rcode.NXDOMAIN)
            made.flags |= dns.flags.AA
            return made.to_wire()
        made.authority.append(dns.rrset.from_text("example.com.", 3600, "IN", "NS", "ns.example.com.", "ns.gone.com."))
        made.additional.append(dns.rrset.from_text("ns.example.com.", 2, "IN", "A", EXAMPLE))
        return made.to_wire()

    internet.override[COM] = refer
    assert (await ask(server, "www.example.com.")).rcode() == 0
    clock += 40  # longer than the TTLs of www and of the glue record
    assert (await ask(server, "www.example.com.")).rcode() == 0


async def test_ds_is_asked_of_the_parent_also_when_the_child_is_known(internet: Internet) -> None:
    honest = internet.responders[COM]

    def parent(wire: bytes, transport: serving.Transport) -> bytes:
        if dns.message.from_wire(wire).question[0].rdtype == dns.rdatatype.DS:
            return raw(wire, record(PTR, 43, b"\x30\x39\x0d\2" + b"\xab" * 32))
        response = honest.respond(wire, udp=transport == "udp")
        assert response is not None
        return response.wire

    internet.override[COM] = parent
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    await ask(server, "www.example.com.")
    message = await ask(server, "example.com.", "DS")
    assert message.answer[0][0].to_text() == "12345 13 2 " + "ab" * 32


async def test_many_clients_below_one_glueless_cut_ask_for_its_server_once(internet: Internet) -> None:
    honest = internet.responders[COM]

    def without_glue(wire: bytes, transport: serving.Transport) -> bytes:
        response = honest.respond(wire, udp=transport == "udp")
        assert response is not None
        message = dns.message.from_wire(response.wire)
        if "glueless" in message.question[0].name.to_text().lower():
            message.additional = []
        return message.to_wire()

    internet.override[COM] = without_glue
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    await asyncio.gather(*(ask(server, f"n{i}.glueless.com.") for i in range(50)))
    assert sum(address == OTHER for address, _ in internet.asked) == 1 + 50, "its address once, and each name"


async def test_the_do_bit_is_copied_and_a_failure_says_why(internet: Internet) -> None:
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    for _ in range(2):
        assert (await ask(server, "www.example.com.", want_dnssec=True)).ednsflags == dns.flags.DO
    message = await ask(server, "www.loop-a.com.")
    (option,) = message.options
    said = "no server of loop-a.com. gave an answer for www.loop-a.com. (ns.loop-b.com.: no address)"
    assert (option.code, option.text) == (22, said)


async def test_padding_does_not_make_the_resolver_grow(internet: Internet) -> None:
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    await ask(server, "www.example.com.")
    for i in range(50):
        pad = dns.edns.GenericOption(dns.edns.OptionType.PADDING, struct.pack("!I", i) + bytes(400))
        assert (await ask(server, "www.example.com.", options=[pad])).rcode() == 0
    assert len(server._encoded) == 1
