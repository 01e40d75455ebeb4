"""Tests for answers from the lab's zones, decoded by an independent library (dnspython)."""

import struct
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameserver import Responder, load

ZONES = Path(__file__).parents[2] / "dns" / "zones"


def responder(*origins: str) -> Responder:
    found = {}
    for origin in origins:
        zone = load(origin, ZONES / f"{'root' if origin == '.' else origin.rstrip('.')}.zone")
        found[zone.apex] = zone
    return Responder(found)


ROOT, COM, EXAMPLE = responder("."), responder("com."), responder("example.com.")


def ask(server: Responder, qname: str, qtype: str, *, udp: bool = True, **options) -> dns.message.Message:
    query = dns.message.make_query(qname, qtype, **{"use_edns": 0, "payload": 1232, **options})
    query.flags &= ~dns.flags.RD
    response = server.respond(query.to_wire(), udp=udp)
    assert response is not None
    message = dns.message.from_wire(response.wire)
    assert query.is_response(message)
    return message


def lines(section) -> list[str]:
    return sorted(line for rrset in section for line in rrset.to_text().splitlines())


@pytest.mark.parametrize(
    ("server", "question", "rcode", "aa", "answer", "authority", "additional"),
    [
        pytest.param(
            EXAMPLE, "www.example.com. A", "NOERROR", True, ["www.example.com. 30 IN A 198.19.20.10"], [], [],
            id="address",
        ),
        pytest.param(
            EXAMPLE, "WwW.eXample.CoM. A", "NOERROR", True, ["WwW.eXample.CoM. 30 IN A 198.19.20.10"], [], [],
            id="case-is-kept",
        ),
        pytest.param(
            EXAMPLE, "alias.example.com. A", "NOERROR", True,
            ["alias.example.com. 30 IN CNAME shop.example.com.", "shop.example.com. 30 IN CNAME www.example.com.",
             "www.example.com. 30 IN A 198.19.20.10"], [], [], id="cname-chain",
        ),
        pytest.param(
            EXAMPLE, "alias.example.com. CNAME", "NOERROR", True, ["alias.example.com. 30 IN CNAME shop.example.com."],
            [], [], id="cname-itself",
        ),
        pytest.param(
            EXAMPLE, "a.b.wild.example.com. A", "NOERROR", True, ["a.b.wild.example.com. 300 IN A 198.19.20.10"],
            [], [], id="wildcard",
        ),
        pytest.param(
            EXAMPLE, "a.wild.example.com. MX", "NOERROR", True, [],
            ["example.com. 10 IN SOA ns1.example.com. hostmaster.example.com. 2026112302 60 30 604800 10"],
            [], id="wildcard-nodata",
        ),
        pytest.param(
            EXAMPLE, "nobody.example.com. A", "NXDOMAIN", True, [],
            ["example.com. 10 IN SOA ns1.example.com. hostmaster.example.com. 2026112302 60 30 604800 10"],
            [], id="nxdomain",
        ),
        pytest.param(
            EXAMPLE, "www.example.com. AAAA", "NOERROR", True, [],
            ["example.com. 10 IN SOA ns1.example.com. hostmaster.example.com. 2026112302 60 30 604800 10"],
            [], id="nodata",
        ),
        pytest.param(
            EXAMPLE, "empty.example.com. A", "NOERROR", True, [],
            ["example.com. 10 IN SOA ns1.example.com. hostmaster.example.com. 2026112302 60 30 604800 10"],
            [], id="empty-non-terminal",
        ),
        pytest.param(
            EXAMPLE, "x.news.example.com. A", "NOERROR", False, [],
            ["news.example.com. 3600 IN NS ns.news.example.com."], ["ns.news.example.com. 3600 IN A 198.19.20.54"],
            id="referral-with-glue",
        ),
        pytest.param(
            EXAMPLE, "ns.news.example.com. A", "NOERROR", False, [],
            ["news.example.com. 3600 IN NS ns.news.example.com."], ["ns.news.example.com. 3600 IN A 198.19.20.54"],
            id="glue-is-not-an-answer",
        ),
        pytest.param(EXAMPLE, "www.example.org. A", "REFUSED", False, [], [], [], id="not-our-zone"),
        pytest.param(EXAMPLE, "example.com. AXFR", "REFUSED", False, [], [], [], id="transfer"),
        pytest.param(
            ROOT, "www.example.com. A", "NOERROR", False, [], ["com. 3600 IN NS a.gtld-servers.test."],
            ["a.gtld-servers.test. 3600 IN A 198.19.12.53"], id="root-refers-to-tld",
        ),
        pytest.param(
            COM, "www.example.com. A", "NOERROR", False, [],
            ["example.com. 3600 IN NS ns1.example.com.", "example.com. 3600 IN NS ns2.example.com."],
            ["ns1.example.com. 3600 IN A 198.19.20.53", "ns2.example.com. 3600 IN A 198.19.30.53"],
            id="tld-refers-to-zone",
        ),
        pytest.param(
            EXAMPLE, "example.com. CAA", "NOERROR", True, ['example.com. 300 IN CAA 0 issue "ca.example.com"'], [], [],
            id="caa",
        ),
    ],
)  # fmt: skip
def test_answers(server, question, rcode, aa, answer, authority, additional) -> None:
    message = ask(server, *question.split())
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert bool(message.flags & dns.flags.AA) == aa
    assert lines(message.answer) == answer
    assert lines(message.authority) == authority
    assert lines(message.additional) == additional


def test_an_answer_larger_than_a_datagram_is_truncated_and_complete_over_tcp() -> None:
    small = ask(EXAMPLE, "big.example.com.", "TXT")
    assert small.flags & dns.flags.TC
    assert small.answer == []
    whole = ask(EXAMPLE, "big.example.com.", "TXT", udp=False)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 13


def test_without_edns_512_bytes_are_the_limit_and_there_is_no_opt_record() -> None:
    query = dns.message.make_query("big.example.com.", "TXT", use_edns=False)
    response = EXAMPLE.respond(query.to_wire(), udp=True)
    assert response is not None
    assert len(response.wire) <= 512
    assert dns.message.from_wire(response.wire).edns == -1


def test_an_unknown_edns_version_gets_badvers() -> None:
    assert ask(EXAMPLE, "www.example.com.", "A", use_edns=1).rcode() == dns.rcode.BADVERS


def test_a_second_question_with_another_id_and_flags_is_answered_with_them() -> None:
    first, second = (dns.message.make_query("www.example.com.", "A", id=i) for i in (1, 2))
    for query in (first, second):
        response = EXAMPLE.respond(query.to_wire(), udp=True)
        assert response is not None
        message = dns.message.from_wire(response.wire)
        assert (message.id, bool(message.flags & dns.flags.RD)) == (query.id, True)


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        pytest.param(
            struct.pack("!6H", 7, 0x2800, 1, 0, 0, 0) + b"\x00\x00\x06\x00\x01", dns.rcode.NOTIMP, id="update",
        ),
        pytest.param(struct.pack("!6H", 7, 0, 0, 0, 0, 0), dns.rcode.FORMERR, id="no-question"),
        pytest.param(struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\x03ww", dns.rcode.FORMERR, id="cut-short"),
        pytest.param(
            struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR,
            id="compressed-question",
        ),
        pytest.param(
            struct.pack("!6H", 7, 0, 1, 0, 0, 2) + b"\x00\x00\x02\x00\x01"
            + (b"\x00" + struct.pack("!HHIH", 41, 1232, 0, 0)) * 2,
            dns.rcode.FORMERR, id="two-opt",
        ),
    ],
)  # fmt: skip
def test_malformed_queries(wire: bytes, rcode: int) -> None:
    response = EXAMPLE.respond(wire, udp=True)
    assert response is not None
    assert response.rcode == rcode
    assert response.wire[:2] == wire[:2]


@pytest.mark.parametrize(
    "wire", [b"", b"\x00" * 11, struct.pack("!6H", 7, 0x8000, 1, 0, 0, 0)], ids=["empty", "short", "a-response"]
)
def test_bytes_that_are_not_a_query_get_no_answer(wire: bytes) -> None:
    assert EXAMPLE.respond(wire, udp=True) is None


@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_break_the_responder(tail: bytes, udp: bool) -> None:
    response = EXAMPLE.respond(struct.pack("!6H", 1, 0, 1, 0, 0, 0) + tail, udp=udp)
    assert response is not None
    assert len(response.wire) >= 12


LABEL = st.text("abcw1-*", min_size=1, max_size=9)


@given(
    st.lists(LABEL, max_size=5),
    st.sampled_from(["A", "NS", "TXT", "MX", "CNAME", "SOA", "ANY", "DS"]),
    st.integers(0, 4096),
)
def test_every_answer_reads_back_and_fits(labels: list[str], qtype: str, payload: int) -> None:
    qname = ".".join([*labels, "example.com."])
    query = dns.message.make_query(qname, qtype, use_edns=0, payload=payload)
    response = EXAMPLE.respond(query.to_wire(), udp=True)
    assert response is not None
    assert len(response.wire) <= max(512, min(payload, 1232))
    assert query.is_response(dns.message.from_wire(response.wire))


@pytest.mark.parametrize(("rdclass", "authoritative"), [("IN", True), ("ANY", False)])
def test_an_answer_for_all_classes_is_not_authoritative(rdclass: str, authoritative: bool) -> None:
    for name in ("www.example.com.", "absent.example.com."):
        assert bool(ask(EXAMPLE, name, "A", rdclass=rdclass).flags & dns.flags.AA) is authoritative
