"""Header fields on their way through, as properties of any request that there may be."""

import string
from typing import Any

import httptools
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import BadRequestError, EdgeError
from edge.headers import HOP_BY_HOP, Fields, check_request, encode, end_to_end, forwarded, request_framing

TOKENS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=10).map(str.encode)
#: Names that matter often enough to be met by chance.
NAMES = TOKENS | st.sampled_from(
    [b"host", b"content-length", b"transfer-encoding", b"connection", b"x-forwarded-for", b"x-forwarded-proto",
     b"x-forwarded-tls", b"x-forwarded-port", b"forwarded", b"via", b"te", b"upgrade", b"expect"]
)  # fmt: skip
VALUES = st.text(string.printable.translate(dict.fromkeys(range(32))), max_size=12).map(lambda s: s.strip().encode())
FIELDS = st.lists(st.tuples(NAMES, VALUES | NAMES), max_size=8)


def names(fields: Fields) -> set[bytes]:
    return {name for name, _ in fields}


@given(FIELDS)
def test_no_field_of_one_hop_passes_and_length_and_host_always_do(fields: Fields) -> None:
    kept = end_to_end(fields)
    assert not names(kept) & HOP_BY_HOP
    for name in (b"content-length", b"host"):
        assert [v for n, v in kept if n == name] == [v for n, v in fields if n == name]


@given(FIELDS, st.sampled_from([b"", b"version=TLSv1.3; cipher=x; resumed=no"]))
def test_what_an_origin_is_told_of_the_client_is_ours(fields: Fields, tls: bytes) -> None:
    sent = forwarded(fields, "198.19.1.10", "https", tls)
    told = {name: [v for n, v in sent if n == name] for name in names(sent)}
    assert told[b"x-forwarded-proto"] == [b"https"]
    assert told[b"x-forwarded-for"][0].endswith(b"198.19.1.10")
    assert len(told[b"x-forwarded-for"]) == 1
    assert told.get(b"x-forwarded-tls", [b""]) == [tls]
    assert {name for name in told if name.startswith(b"x-forwarded-")} <= {
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-tls"
    }  # fmt: skip
    assert b"forwarded" not in told
    assert told[b"via"][0].endswith(b"1.1 firstbyte-edge")


@given(FIELDS, st.sampled_from(["1.0", "1.1"]))
def test_a_request_has_one_framing_or_is_refused(fields: Fields, version: str) -> None:
    try:
        framing = request_framing(fields, version)
    except BadRequestError:
        return
    assert not (framing.chunked and framing.length is not None)
    assert framing.chunked == (b"transfer-encoding" in names(fields))


class Seen:
    """What an independent reader finds in a head that we wrote."""

    def __init__(self) -> None:
        self.fields: Fields = []
        self.url = b""
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_message_complete(self) -> None:
        self.messages += 1


@given(FIELDS)
def test_an_origin_reads_what_was_checked_and_nothing_more(fields: Fields) -> None:
    try:
        framing = check_request(b"GET", b"/a", fields, "1.1")
    except EdgeError:
        return
    head = forwarded(fields, "198.19.1.10", "https")
    if framing.chunked:
        head.append((b"transfer-encoding", b"chunked"))
    seen: Any = Seen()
    parser = httptools.HttpRequestParser(seen)
    body = b"0\r\n\r\n" if framing.chunked else bytes(min(framing.length or 0, 4096))
    parser.feed_data(encode(b"GET /a HTTP/1.1", head) + body)
    assert seen.url == b"/a"
    assert [(name, value.strip()) for name, value in seen.fields] == [(name, value.strip()) for name, value in head]
    assert seen.messages <= 1
