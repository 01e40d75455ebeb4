"""Differential tests of the head parser: `edge.heads` against a byte-by-byte reference parser, and against llhttp.

`edge.heads` parses a head with one regular expression; the reference parser in this file follows the grammar of
RFC 9112 step by step.  Inputs are request smuggling vectors and mutations of them.  llhttp, the parser of Node, must
read the forwarded heads as the edge does.
"""

from typing import Any

import httptools
from hypothesis import given

from edge import heads
from edge.errors import BadResponseError, EdgeError
from edge.remembered import Remembered
from tests.edge.vectors import REQUESTS, RESPONSES, mutated

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VALUE = frozenset({*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)})
Head = tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]


def lines_of(head: bytes) -> list[bytes] | None:
    """Return the lines of *head* before the empty line at its end; None unless the first empty line is at the end."""
    lines: list[bytes] = []
    line = b""
    for place, octet in enumerate(head):
        line += bytes([octet])
        if line.endswith(b"\r\n"):
            if line == b"\r\n":
                return lines if place + 1 == len(head) else None
            lines.append(line[:-2])
            line = b""
        elif octet == ord("\n"):
            return None
    return None


def fields_of(lines: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    """Return field names and values (RFC 9112 section 5); None if a line is not a valid field line."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not TCHAR.issuperset(name) or not VALUE.issuperset(value):
            return None
        fields.append((name, value))
    return fields if len(fields) <= heads.MAX_FIELDS else None


def request_by_hand(head: bytes) -> Head | None:
    """Parse a request head (RFC 9112 section 3); return None if it is malformed."""
    lines = lines_of(head)
    words = lines[0].split(b" ") if lines else []
    if lines is None or len(words) != 3 or words[2] not in {b"HTTP/1.0", b"HTTP/1.1"}:
        return None
    method, target, version = words
    visible = all(0x21 <= octet <= 0x7E for octet in target)
    fields = fields_of(lines[1:])
    if not method or not TCHAR.issuperset(method) or not target or not visible or fields is None:
        return None
    return method, target, version[-1:], fields


def response_by_hand(head: bytes) -> Head | None:
    """Parse a response head (RFC 9112 section 4); return None if it is malformed."""
    lines = lines_of(head)
    if not lines:
        return None
    version, _, rest = lines[0].partition(b" ")
    status, space, reason = rest.partition(b" ")
    fields = fields_of(lines[1:])
    digits = len(status) == 3 and all(0x30 <= octet <= 0x39 for octet in status) and b"1" <= status[:1] <= b"5"
    if version not in {b"HTTP/1.0", b"HTTP/1.1"} or not digits or not VALUE.issuperset(reason) or fields is None:
        return None
    return version[-1:], status, reason if space else b"", fields


def split(lines: bytes) -> list[tuple[bytes, bytes]]:
    return [line.partition(b":")[::2] for line in lines.split(b"\r\n")[:-1]]


@given(mutated(REQUESTS))
def test_requests_are_read_alike(head: bytes) -> None:
    match, by_hand = heads._REQUEST.fullmatch(head), request_by_hand(head)
    assert (match is None) == (by_hand is None)
    if match is not None and by_hand is not None:
        assert (match[1], match[2], match[3], split(match[4])) == by_hand
    else:
        assert heads.why_not_a_request(head).status in {400, 414, 431, 505}


@given(mutated(RESPONSES))
def test_responses_are_read_alike(head: bytes) -> None:
    match, by_hand = heads._RESPONSE.fullmatch(head), response_by_hand(head)
    assert (match is None) == (by_hand is None)
    if match is not None and by_hand is not None:
        assert (match[1], match[2], match[3] or b"", split(match[4])) == by_hand


@given(mutated(REQUESTS), mutated(RESPONSES))
def test_a_remembered_head_is_the_one_that_was_read(request: bytes, response: bytes) -> None:
    for function, head in ((heads.request_head, request), (heads.response_head, response)):
        remembered: Remembered[Any] = Remembered(function, generation=64)
        outcomes = [outcome(function, head), *(outcome(remembered, head) for _ in range(3))]
        assert all(each == outcomes[0] for each in outcomes)


def outcome(function: Any, head: bytes) -> object:
    try:
        return function(head)
    except (EdgeError, BadResponseError) as error:
        return type(error), getattr(error, "status", None), str(error)


class Seen:
    """Callbacks that record what llhttp parses."""

    def __init__(self) -> None:
        self.complete = 0
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete += 1


@given(mutated(REQUESTS))
def test_what_is_forwarded_is_one_request_for_llhttp_too(head: bytes) -> None:
    try:
        read = heads.request_head(head)
    except EdgeError:
        return
    if read.method not in {b"GET", b"POST", b"OPTIONS"}:  # llhttp accepts only the methods in its list
        return
    chunked, length = read.framing.chunked, min(read.framing.length or 0, 1 << 16)
    sent = read.forward + b"198.19.1.10\r\n" + (b"transfer-encoding: chunked\r\n" if chunked else b"") + b"\r\n"
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(sent)
    assert seen.complete == (not chunked and length == 0)
    if seen.complete == 0 and length == (read.framing.length or 0):
        parser.feed_data(b"0\r\n\r\n" if chunked else bytes(length))
        assert seen.complete == 1
    assert parser.get_method() == read.method
    assert [value for name, value in seen.fields if name == b"host"] == [read.host] * bool(read.host)
