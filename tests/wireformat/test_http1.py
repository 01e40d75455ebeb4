"""Tests for HTTP/1.1: encoding and parsing of heads, and responses received in arbitrary fragments."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireformat.http1 import HttpError, encode_head, get, parse_request_head
from wireformat.http1_reader import MAX_FIELDS, MAX_HEAD, ResponseReader


def test_a_get_request_is_parsed_as_it_was_encoded() -> None:
    head = parse_request_head(get("www.example.com", "/items?page=2", "Connection: close"))
    assert (head.method, head.target) == ("GET", "/items?page=2")
    assert head.fields == {"host": "www.example.com", "connection": "close"}


@pytest.mark.parametrize("start", ["GET /", "GET / FTP", "GET  / HTTP/1.1", ""])
def test_other_request_lines_are_refused(start: str) -> None:
    with pytest.raises(HttpError, match=r"expected an HTTP/1\.1 request line"):
        parse_request_head(start.encode() + b"\r\n\r\n")


def test_a_field_without_a_colon_is_refused() -> None:
    with pytest.raises(HttpError, match="expected a header"):
        parse_request_head(b"GET / HTTP/1.1\r\nbroken\r\n\r\n")


COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + COUNTED
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("data", "keep_alive", "fields"),
    [
        pytest.param(COUNTED, True, [b"content-length"], id="content-length"),
        pytest.param(CHUNKED, True, [b"transfer-encoding"], id="chunked"),
        pytest.param(INTERIM, True, [b"content-length"], id="interim-responses-are-skipped"),
        pytest.param(CLOSING, False, [b"connection", b"content-length"], id="connection-close"),
        pytest.param(OLD, False, [b"content-length"], id="http-1.0"),
    ],
)
@given(cuts=st.lists(st.floats(0, 1), max_size=4))
def test_a_response_is_the_same_in_any_pieces(
    data: bytes, keep_alive: bool, fields: list[bytes], cuts: list[float]
) -> None:
    body: list[bytes] = []
    heads = []
    reader = ResponseReader(body.append, lambda: heads.append(reader.status))
    places = sorted({int(cut * len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]
    assert [reader.feed(piece) for piece in pieces].index(True) == len(pieces) - 1
    assert (b"".join(body), reader.body_bytes, reader.keep_alive) == (b"hello", 5, keep_alive)
    assert ([name.lower() for name, _ in reader.fields], heads) == (fields, [200])


def test_version_reason_and_fields_are_those_of_the_response() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 404 Not Found\r\nServer-Timing: pool;dur=1\r\nContent-Length: 0\r\n\r\n")
    assert (reader.version, reader.status, reader.reason) == ("1.1", 404, b"Not Found")
    assert (reader.field(b"server-timing"), reader.field(b"via")) == ("pool;dur=1", "")
    assert repr(reader) == "<ResponseReader 404 complete body=0>"


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    reader = ResponseReader()
    assert reader.feed(f"HTTP/1.1 {status} x\r\n\r\n".encode())
    assert reader.keep_alive


def test_the_response_to_head_has_no_body() -> None:
    reader = ResponseReader(head_only=True)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert reader.keep_alive


def test_without_a_length_the_body_ends_with_the_connection() -> None:
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    reader.end()
    assert (reader.complete, reader.body_bytes, reader.keep_alive) == (True, 5, False)


@pytest.mark.parametrize(
    "data", [b"", COUNTED[:20], COUNTED[:-1], CHUNKED[:-2]], ids=["nothing", "head", "body", "trailer"]
)
def test_an_incomplete_response_is_refused_at_the_end(data: bytes) -> None:
    reader = ResponseReader()
    reader.feed(data)
    with pytest.raises(HttpError, match="closed before the response was complete"):
        reader.end()


@pytest.mark.parametrize("more", [b"x", COUNTED, b"HTTP/1.1 "], ids=["nonsense", "response", "half-a-response"])
@pytest.mark.parametrize("together", [True, False])
def test_bytes_after_the_response_end_keep_alive(more: bytes, together: bool) -> None:
    reader = ResponseReader()
    for piece in [COUNTED + more] if together else [COUNTED, more]:
        assert reader.feed(piece)
    assert (reader.keep_alive, reader.status, reader.body_bytes) == (False, 200, 5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "expected an HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "expected an HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "expected an HTTP response"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switch protocols"),
        (encode_head(b"HTTP/1.1 200 OK", [(b"a", b"b")] * (MAX_FIELDS + 1)), "more than 100 fields"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD, "at most 32768 bytes"),
    ],
    ids=["not-http", "two-lengths", "length-and-coding", "upgrade", "fields", "header"],
)
def test_what_is_no_response_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(HttpError, match=message):
        ResponseReader().feed(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for head in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with contextlib.suppress(HttpError):
            ResponseReader().feed(head + data)
