"""Property tests for the parsing and forwarding of request and response heads."""

import contextlib
import string
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.bodies import BodyError, ChunkedBody, LengthBody, request_body
from edge.errors import BadRequestError, BadResponseError, EdgeError
from edge.heads import (
    HOP_BY_HOP,
    Fields,
    RequestHead,
    early_refusal,
    normal_path,
    request_head,
    response_head,
)

TOKENS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=10).map(str.encode)
#: Strategy for field names; names with special rules are frequent enough that duplicates occur by chance.
NAMES = TOKENS | st.sampled_from(
    [b"host", b"content-length", b"transfer-encoding", b"connection", b"x-forwarded-for", b"x-forwarded-proto",
     b"x-forwarded-tls", b"x-forwarded-port", b"x_forwarded_for", b"forwarded", b"via", b"te", b"upgrade", b"expect",
     b"max-forwards", b"content_length"]
)  # fmt: skip
VALUES = st.text(string.printable.translate(dict.fromkeys(range(32))), max_size=12).map(lambda s: s.strip().encode())
FIELDS = st.lists(st.tuples(NAMES, VALUES | NAMES), max_size=8)


def names(fields: Fields) -> set[bytes]:
    return {name for name, _ in fields}


def request(fields: Fields, start: bytes = b"GET /a HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *(name + b": " + value for name, value in fields), b"", b""])


class Seen:
    """Request target, fields and message count that httptools, as an independent parser, finds in a generated head."""

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


def as_sent(head: RequestHead) -> bytes:
    """Return the complete head that an origin receives for a request from 198.19.1.10 over TLS."""
    coding = b"transfer-encoding: chunked\r\n" if head.framing.chunked else b""
    return (
        head.forward + b"198.19.1.10\r\nx-forwarded-proto: https\r\nx-forwarded-tls: version=x\r\n" + coding + b"\r\n"
    )


@given(FIELDS)
def test_an_origin_gets_what_was_checked_and_nothing_more(fields: Fields) -> None:
    try:
        head = request_head(request([(b"host", b"x.test"), *fields]))
    except EdgeError:
        return
    seen: Any = Seen()
    parser = httptools.HttpRequestParser(seen)
    body = b"0\r\n\r\n" if head.framing.chunked else bytes(min(head.framing.length or 0, 4096))
    parser.feed_data(as_sent(head) + body)
    got = {name: [v for n, v in seen.fields if n == name] for name in names(seen.fields)}
    assert seen.url == b"/a"
    assert seen.messages <= 1
    assert not names(seen.fields) & (HOP_BY_HOP - {b"transfer-encoding"})
    assert (b"transfer-encoding" in got) == head.framing.chunked
    assert not (b"transfer-encoding" in got and b"content-length" in got)
    assert got[b"host"] == got[b"x-forwarded-host"] == [b"x.test"]
    assert got[b"x-forwarded-proto"] == [b"https"]
    assert len(got[b"x-forwarded-for"]) == 1
    assert got[b"x-forwarded-for"][0].endswith(b"198.19.1.10")
    assert got[b"x-forwarded-tls"] == [b"version=x"]
    assert {name for name in got if name.replace(b"_", b"-").startswith(b"x-forwarded-")} <= {
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-tls"
    }  # fmt: skip
    assert not {b"forwarded", b"expect", b"content_length"} & set(got)
    assert got[b"via"][0].endswith(b"1.1 firstbyte-edge")


@given(FIELDS, st.sampled_from([b"HTTP/1.0", b"HTTP/1.1"]))
def test_a_request_has_one_framing_or_is_refused(fields: Fields, version: bytes) -> None:
    try:
        framing = request_head(request([(b"host", b"x"), *fields], b"POST / " + version)).framing
    except BadRequestError:
        return
    assert not (framing.chunked and framing.length is not None)
    assert framing.chunked == (b"transfer-encoding" in names(fields))


@given(st.binary(max_size=60) | FIELDS.map(request))
def test_a_head_that_may_still_become_one_is_not_refused_early(octets: bytes) -> None:
    try:
        request_head(octets)
    except EdgeError:
        return
    for cut in range(len(octets) - 4):
        assert early_refusal(octets[:cut]) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_a_head(octets: bytes) -> None:
    for read, error in ((request_head, EdgeError), (response_head, BadResponseError)):
        with contextlib.suppress(error):
            read(octets)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a/b?c=/../d", "/a/b"),
        (b"/a/../b", "/b"),
        (b"/a/%2e%2e/b", "/b"),
        (b"//a///b/", "/a/b/"),
        (b"/a/./b/.", "/a/b/"),
        (b"/%61dmin", "/admin"),
        (b"/", "/"),
        (b"/..", None),
        (b"/a/../../b", None),
        (b"/a%", None),
        (b"/a%0", None),
        (b"/a%00", None),
    ],
)
def test_routes_see_paths_normalised(target: bytes, path: str | None) -> None:
    if path is None:
        with pytest.raises(BadRequestError):
            normal_path(target)
    else:
        assert normal_path(target) == path


@pytest.mark.parametrize(
    ("target", "host", "forwarded", "expected_host"),
    [
        pytest.param(b"http://www.example.com?x=1", b"a", b"/?x=1", b"www.example.com", id="query-without-path"),
        pytest.param(b"HTTPS://Far.example.com:8443/a", b"a", b"/a", b"Far.example.com:8443", id="port"),
        pytest.param(b"/", b"my_svc", b"/", b"my_svc", id="underscore"),
        pytest.param(b"/", b"a.example:", b"/", b"a.example:", id="empty-port"),
        pytest.param(b"/", b"[::1]:80", b"/", b"[::1]:80", id="ipv6"),
        pytest.param(b"http://u@evil.example/", b"a", None, b"", id="user"),
        pytest.param(b"http:///", b"a", None, b"", id="no-authority"),
        pytest.param(b"http://a%0d%0aX:1/", b"a", None, b"", id="escapes"),
        pytest.param(b"ftp://a/", b"a", None, b"", id="other-scheme"),
        pytest.param(b"/a#b", b"a", None, b"", id="fragment"),
        pytest.param(b"*", b"a", None, b"", id="asterisk"),
        pytest.param(b"/", b"a b", None, b"", id="blank-in-host"),
        pytest.param(b"/", b"", None, b"", id="empty-host"),
        pytest.param(b"/", b"a:123456", None, b"", id="long-port"),
    ],
)
def test_authorities(target: bytes, host: bytes, forwarded: bytes | None, expected_host: bytes) -> None:
    octets = request([(b"Host", host)], b"GET " + target + b" HTTP/1.1")
    if forwarded is None:
        with pytest.raises(BadRequestError) as refused:
            request_head(octets)
        assert refused.value.status == 400
    else:
        head = request_head(octets)
        assert (head.target, head.host) == (forwarded, expected_host)
        assert head.forward.startswith(b"GET %b HTTP/1.1\r\nhost: %b\r\n" % (forwarded, expected_host))


@pytest.mark.parametrize("method", [b"GET", b"PROPFIND", b"M-SEARCH", b"PURGE", b"X"])
def test_any_token_is_a_method(method: bytes) -> None:
    assert request_head(request([(b"Host", b"a")], method + b" / HTTP/1.1")).method == method


def test_max_forwards_is_counted_down_for_trace_and_options_only() -> None:
    fields = [(b"Host", b"a"), (b"Max-Forwards", b"3")]
    assert b"max-forwards: 2\r\n" in request_head(request(fields, b"TRACE / HTTP/1.1")).forward
    assert b"max-forwards" not in request_head(request(fields)).forward


CHUNKED = [
    pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"", id="one"),
    pytest.param(b"3;a=b\r\nabc\r\n1 ;c\r\nd\r\n00\r\nX: y\r\n\r\nGET", b"abcd", b"GET", id="extensions-and-trailers"),
    pytest.param(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", id="hex"),
]


@pytest.mark.parametrize(("octets", "payload", "rest"), CHUNKED)
def test_chunks_are_read_however_they_are_cut(octets: bytes, payload: bytes, rest: bytes) -> None:
    for step in range(1, len(octets) + 1):
        body, got = ChunkedBody(), b""
        pieces = [octets[at : at + step] for at in range(0, len(octets), step)]
        left = b""
        for piece in pieces:
            if body.done:
                left += piece
            else:
                got += body.feed(piece)
        assert (got, body.done, body.rest + left) == (payload, True, rest)


@pytest.mark.parametrize(
    "octets",
    [b"x\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"3\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\n", b"\r\n",
     b"1" * 17 + b"\r\n", b"0\r\nbad trailer\r\n\r\n", b"0\r\nA: \0\r\n\r\n", b"3;\x01\r\nabc\r\n",
     b"0\r\n" + b"A: b\r\n" * 2000, b"1" + b" " * 2000],
)  # fmt: skip
def test_malformed_chunks_are_refused(octets: bytes) -> None:
    with pytest.raises(BodyError):
        ChunkedBody().feed(octets)


@given(st.binary(max_size=40), st.integers(0, 40))
@example(b"abc", 0)
def test_a_body_of_known_length_takes_so_many_bytes(octets: bytes, length: int) -> None:
    body = LengthBody(length)
    payload = body.feed(octets)
    assert (payload, body.rest) == (octets[:length], octets[length:])
    assert body.done == (len(octets) >= length)


def test_a_request_without_framing_has_no_body() -> None:
    assert request_body(request_head(request([(b"host", b"x")])).framing).done


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_a_response_head_that_could_be_read_in_two_ways_is_refused(octets: bytes) -> None:
    with pytest.raises(BadResponseError):
        response_head(octets)


def test_what_a_client_gets_of_a_response_head() -> None:
    head = response_head(
        b"HTTP/1.0 200 Fine\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
        b"Via: 1.0 a\r\nServer-Timing: x\r\nDate: d\r\n\r\n"
    )
    assert head.forward == b"HTTP/1.1 200 Fine\r\ndate: d\r\nvia: 1.0 a, 1.1 firstbyte-edge\r\n"
    assert (head.framing.length, head.keep_alive, head.dateless) == (2, False, False)
