"""Master files: what is read, and what is said of what is wrong."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameserver import NameServerError, ZoneFileError, parse

HEAD = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"


def test_parentheses_quotes_comments_units_and_inherited_owners() -> None:
    zone = parse(
        "example.",
        """
$TTL 1h30m
@   IN  SOA ns.example. hm (   ; the start
        2026 1h 15m
        1w 10 ) ; of authority
    IN  NS  ns
ns  60  IN A 192.0.2.1
        A 192.0.2.2
t       TXT "a; b" c "say \\"hi\\""
""",
    )
    assert zone.serial == 2026
    assert zone.soa.ttl == 5400
    assert {(r.rtype, r.ttl): r.text() for r in zone if r.name == (b"ns", b"example")} == {
        ("A", 60): ["192.0.2.1", "192.0.2.2"]
    }
    text = next(r for r in zone if r.rtype == "TXT")
    assert text.rdata[0].data == [b"a; b", b"c", b'say "hi"']


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param(HEAD + "x IN A 1.2.3\n", 5, "expected an IPv4 address, got '1.2.3'", id="address"),
        pytest.param(HEAD + "x IN NAPTR a\n", 5, "expected a record type of A, AAAA", id="type"),
        pytest.param(HEAD + "x IN MX mail\n", 5, "expected MX PREFERENCE NAME, got 1 words: mail", id="word-count"),
        pytest.param(HEAD + "x CH A 192.0.2.1\n", 5, "expected class IN, got CH", id="class"),
        pytest.param(HEAD + 'x IN TXT "open\n', 5, 'expected a closing "', id="quote"),
        pytest.param(HEAD + "x IN TXT ( a\n", 5, "expected a closing )", id="parenthesis"),
        pytest.param(HEAD + "other.org. IN A 192.0.2.1\n", 5, "expected names in example., got other.org.", id="out-of-zone"),
        pytest.param(HEAD + "$INCLUDE x\n", 5, "expected $ORIGIN or $TTL, got $INCLUDE", id="directive"),
        pytest.param("@ IN SOA ns hm 1 2 3 4 5\n", 1, "expected a TTL", id="ttl"),
        pytest.param("$TTL 60\n@ IN NS ns\n", 0, "expected one SOA record at example., got none", id="soa"),
        pytest.param(HEAD + "x IN CNAME ns\nx IN A 192.0.2.1\n", 0, "expected nothing beside the CNAME at x.example., got A, CNAME", id="cname"),
        pytest.param(HEAD + "x" * 64 + " IN A 192.0.2.1\n", 5, "expected labels of 1 to 63 octets, got 64", id="label"),
    ],
)  # fmt: skip
def test_errors_name_file_line_and_what_was_expected(text: str, line: int, message: str) -> None:
    with pytest.raises(ZoneFileError) as error:
        parse("example.", text, "example.zone")
    assert str(error.value).startswith(f"example.zone:{line}: ")
    assert message in str(error.value)


@given(st.text('abAN \t\n\r;()"\\$@.1*', max_size=120))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(NameServerError):
        parse("example.", HEAD + text)
