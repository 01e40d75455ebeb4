"""Tests for the DNS query in an HTTPS request, and for the cache lifetime of its response (RFC 8484)."""

import base64

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encrypted.doh import MAX_QUERY, DohError, Head, check, max_age, query_of

QUERY = dns.message.make_query("www.example.com", "A", id=0).to_wire()
DNS = base64.urlsafe_b64encode(QUERY).decode().rstrip("=")
TYPE = "application/dns-message"


def answered(head: Head, body: bytes) -> int:
    """Return the status of the response to a request."""
    try:
        check(head)
        return 200 if len(query_of(head, body)) >= 12 else 500
    except DohError as error:
        return error.status


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (Head("GET", f"/dns-query?dns={DNS}"), b""),
        (Head("GET", f"/dns-query?ct&dns={DNS}=="), b""),
        (Head("HEAD", f"/dns-query?dns={DNS}"), b""),
        (Head("POST", "/dns-query", TYPE), QUERY),
        (Head("POST", "/dns-query?x=1", TYPE.upper() + "; q=1"), QUERY),
    ],
    ids=["get", "padded", "head", "post", "type-with-parameter"],
)
def test_the_query_is_found(head: Head, body: bytes) -> None:
    check(head)
    assert query_of(head, body) == QUERY


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (Head("GET", "/"), b"", 404),
        (Head("GET", f"/dns-query/?dns={DNS}"), b"", 404),
        (Head("PUT", "/dns-query", TYPE), QUERY, 405),
        (Head("GET", "/dns-query?dns=" + "A" * 7000), b"", 414),
        (Head("POST", "/dns-query", "application/json"), QUERY, 415),
        (Head("POST", "/dns-query"), QUERY, 415),
        (Head("GET", "/dns-query"), b"", 400),
        (Head("GET", f"/dns-query?dns={DNS}&dns={DNS}"), b"", 400),
        (Head("GET", "/dns-query?dns=AAA+AAA"), b"", 400),
        (Head("GET", "/dns-query?dns=A"), b"", 400),
        (Head("GET", "/dns-query?dns=%zz%C3%BC"), b"", 400),
        (Head("POST", "/dns-query", TYPE), b"short", 400),
        (Head("POST", "/dns-query", TYPE), QUERY[:2] + b"\x81" + QUERY[3:], 400),
        (Head("POST", "/dns-query", TYPE), QUERY + bytes(MAX_QUERY), 413),
    ],
    ids=["root", "slash", "put", "long-target", "json", "no-type", "no-variable", "twice", "plus", "one-digit",
         "percent", "short", "response", "long-body"],
)  # fmt: skip
def test_a_request_that_is_none_gets_the_status_of_its_fault(head: Head, body: bytes, status: int) -> None:
    assert answered(head, body) == status


@given(st.text(max_size=60), st.text(max_size=200), st.text(max_size=40), st.binary(max_size=200))
def test_no_request_causes_another_error(method: str, target: str, media: str, body: bytes) -> None:
    for head in (
        Head(method, target, media),
        Head("GET", "/dns-query?dns=" + target),
        Head("POST", "/dns-query", TYPE),
    ):
        assert answered(head, body) in {200, 400, 404, 405, 413, 414, 415}


SOA = "a.example. b.example. 1 2 3 4 30"


@pytest.mark.parametrize(
    ("rcode", "answer", "authority", "age"),
    [
        (0, [("www.example.com", 60, "A", "192.0.2.1")], [], 60),
        (0, [("www.example.com", 60, "CNAME", "x.example."), ("x.example", 7, "A", "192.0.2.1")], [], 7),
        (0, [("www.example.com", 60, "A", "192.0.2.1")], [("example.com", 5, "NS", "ns.example.")], 60),
        (0, [], [("example.com", 600, "SOA", SOA)], 30),
        (3, [], [("example.com", 20, "SOA", SOA)], 20),
        (3, [("www.example.com", 60, "CNAME", "x.example.")], [("example", 600, "SOA", SOA)], 30),
        (3, [], [], 0),
        (0, [], [], 0),
        (2, [], [], 0),
        (5, [], [("example.com", 600, "SOA", SOA)], 0),
    ],
    ids=["answer", "alias", "authority-does-not-count", "nodata", "nxdomain", "alias-to-nxdomain", "no-soa", "empty",
         "servfail", "refused"],
)  # fmt: skip
def test_a_cache_may_use_the_response_as_long_as_its_records(rcode: int, answer, authority, age: int) -> None:
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.answer = [dns.rrset.from_text(name + ".", ttl, "IN", kind, data) for name, ttl, kind, data in answer]
    message.authority = [dns.rrset.from_text(name + ".", ttl, "IN", kind, data) for name, ttl, kind, data in authority]
    assert max_age(QUERY, message.to_wire()) == age


@given(st.binary(max_size=100))
def test_a_reply_that_cannot_be_read_is_not_cached(junk: bytes) -> None:
    assert max_age(QUERY, QUERY[:2] + b"\x81\x80" + QUERY[4:] + junk) >= 0
    assert max_age(QUERY, junk) == 0
