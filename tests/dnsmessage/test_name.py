"""Tests for domain names in wire and text form."""

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import ROOT, Name, NameSyntaxError, suffixes

LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=6)


@given(LABELS)
def test_any_bytes_survive_the_round_trip_and_dnspython_agrees(labels: list[bytes]) -> None:
    name = Name.from_labels(labels)
    assert name.labels == tuple(labels)
    assert Name.from_text(str(name)) == name
    theirs = dns.name.Name([*labels, b""])
    assert theirs.to_wire() == name.wire
    assert dns.name.from_text(str(name)) == theirs


@given(LABELS, LABELS)
def test_below_and_order_are_dnspythons(one: list[bytes], other: list[bytes]) -> None:
    a, b = Name.from_labels(one), Name.from_labels(other)
    theirs = dns.name.Name([*one, b""]), dns.name.Name([*other, b""])
    assert a.is_below(b) == theirs[0].is_subdomain(theirs[1])
    assert (a < b) == (theirs[0] < theirs[1])
    assert Name.from_labels([b"x", *one]).is_below(a)


def test_case_is_kept_and_not_compared() -> None:
    name = Name.from_text("WwW.Example.")
    assert (name, hash(name)) == (Name.from_text("www.example."), hash(Name.from_text("www.example.")))
    assert str(name) == "WwW.Example."


def test_a_suffix_that_is_no_label_boundary_is_no_ancestor() -> None:
    assert not Name.from_labels([b"a\x03com"]).is_below(Name.from_text("com."))
    assert not Name.from_text("notexample.com.").is_below(Name.from_text("example.com."))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("www.example", "expected an absolute name"),
        ("a..b.", "expected labels of 1 to 63 bytes, got 0"),
        (".a.", "expected labels of 1 to 63 bytes, got 0"),
        ("x" * 64 + ".", "got 64"),
        (".".join(["x" * 60] * 5) + ".", "expected a name of at most 255 bytes"),
        ("a\\", "after the backslash"),
        ("a\\256.", "after the backslash"),
    ],
)
def test_text_that_is_no_name(text: str, message: str) -> None:
    with pytest.raises(NameSyntaxError, match=message):
        Name.from_text(text)


def test_relative_names_and_ancestors() -> None:
    origin = Name.from_text("example.com.")
    assert str(Name.from_text("www", origin)) == "www.example.com."
    assert Name.from_text("@", origin) is origin
    assert [str(Name(each)) for each in suffixes(origin.wire)] == ["example.com.", "com.", "."]
    assert origin.parent().parent().parent() == ROOT
