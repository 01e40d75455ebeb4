"""Tests for the names that the CA certifies, and for the redirects that http-01 validation follows."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server import Problem
from acme_server.names import read_name
from acme_server.redirects import Ports, Target, next_target
from authority import Issuer, issue_intermediate, issue_root, new_key

KEY = new_key()
ROOT = issue_root(KEY, "root", time.time())
ISSUER = Issuer(issue_intermediate(Issuer(ROOT, KEY, ()), KEY.public_key(), "issuing", time.time()), KEY, ())
START = Target(tls=False, name="www.example.com", port=80, path="/.well-known/acme-challenge/t")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("example.com", "example.com"),
        ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
    ],
)
def test_names_that_are_certified(value: str, name: str) -> None:
    assert read_name(value, ISSUER) == name
    assert Issuer(ROOT, KEY, ()).permits(name)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("www.example.org", id="other-domain"),
        pytest.param("notexample.com", id="same-ending"),
        pytest.param("*.example.com", id="wildcard"),
        pytest.param("www.example.com.", id="root-dot"),
        pytest.param("_x.example.com", id="underscore"),
        pytest.param("-x.example.com", id="hyphen-first"),
        pytest.param("192.0.2.1", id="address"),
        pytest.param("a" * 64 + ".example.com", id="long-label"),
        pytest.param("ab--cd.example.com", id="reserved-label"),
        pytest.param("xn--a.example.com", id="no-punycode"),
        pytest.param("xn--www-.example.com", id="ascii-in-punycode"),
        pytest.param("xn--ls8h.example.com", id="emoji"),
        pytest.param("www\u3002example.com", id="unicode-dot"),
        pytest.param(["www.example.com"], id="no-string"),
        pytest.param(None, id="nothing"),
    ],
)
def test_names_that_are_rejected(value: object) -> None:
    with pytest.raises(Problem) as refused:
        read_name(value, ISSUER)
    assert refused.value.kind == "rejectedIdentifier"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other?x=1", "http://www.example.com:80/other?x=1"),
        ("//far.example.com/a", "http://far.example.com:80/a"),
        ("http://far.example.com", "http://far.example.com:80/"),
        ("http://far.example.com:80/a", "http://far.example.com:80/a"),
        ("https://Far.example.com/a#part", "https://far.example.com:443/a"),
    ],
)
def test_redirects_that_are_followed(location: str, target: str) -> None:
    assert str(next_target(START, location, ISSUER, Ports())) == target


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("", "unauthorized"),
        ("http://www.example.com:9900/admin", "unauthorized"),
        ("https://www.example.com:80/", "unauthorized"),
        ("http://www.example.com:443/", "unauthorized"),
        ("http://www.example.com:99999/", "unauthorized"),
        ("http://127.0.0.1/", "rejectedIdentifier"),
        ("http://2130706433/", "rejectedIdentifier"),
        ("http://[::1]/", "rejectedIdentifier"),
        ("http://[::1/", "unauthorized"),
        ("http://localhost/", "rejectedIdentifier"),
        ("http://metadata.google.internal/", "rejectedIdentifier"),
        ("http://www.example.com@127.0.0.1/", "unauthorized"),
        ("http://user:word@www.example.com/", "unauthorized"),
        ("file:///etc/passwd", "unauthorized"),
        ("gopher://www.example.com:80/", "unauthorized"),
        ("http://www.example.com/\r\nX: y", "unauthorized"),
        ("ht\ttp://www.example.com/", "unauthorized"),
        ("/" + "a" * 2000, "unauthorized"),
    ],
)
def test_redirects_that_are_refused(location: str, kind: str) -> None:
    with pytest.raises(Problem) as refused:
        next_target(START, location, ISSUER, Ports())
    assert refused.value.kind == kind


@given(st.one_of(st.text(max_size=40), st.text("htps:/@.?#[]%0127exampl.com-\\", max_size=60)))
def test_no_location_leads_to_another_port_or_name(location: str) -> None:
    try:
        target = next_target(START, location, ISSUER, Ports())
    except Problem:
        return
    assert target.port == (443 if target.tls else 80)
    assert ISSUER.permits(target.name)
    assert all("!" <= each <= "~" for each in target.path)
