"""Tests for payload descriptions: TLS records of real handshakes, split into arbitrary pieces."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handshakes import ends, shake_hands
from tests.peers import Papers
from waterfall.records import LineReader, RecordReader, counted


def handshake(papers: Papers, version: ssl.TLSVersion) -> tuple[bytes, bytes]:
    """Return the bytes that client and server send in a TLS handshake of the given *version*."""
    contexts = papers.client(), papers.server("www.example.com")
    contexts[0].minimum_version = contexts[0].maximum_version = version
    return shake_hands(*ends(*contexts, "www.example.com"))


@pytest.mark.parametrize(
    ("version", "client", "server"),
    [
        (
            ssl.TLSVersion.TLSv1_3,
            "ClientHello, ChangeCipherSpec, encrypted",
            "ServerHello, ChangeCipherSpec, 6 encrypted",
        ),
        (
            ssl.TLSVersion.TLSv1_2,
            "ClientHello, ClientKeyExchange, ChangeCipherSpec, encrypted handshake",
            (
                "ServerHello, Certificate, ServerKeyExchange, ServerHelloDone, NewSessionTicket, "
                "ChangeCipherSpec, encrypted handshake"
            ),
        ),
    ],
    ids=["1.3", "1.2"],
)  # fmt: skip
def test_the_messages_of_a_real_handshake(papers: Papers, version: ssl.TLSVersion, client: str, server: str) -> None:
    ours, theirs = handshake(papers, version)
    assert counted(RecordReader().feed(ours)) == client
    assert counted(RecordReader().feed(theirs)) == server


@pytest.fixture(scope="module")
def stream(papers: Papers) -> bytes:
    """Return the bytes that a TLS 1.2 server sends.  Module-scoped, because the length differs between handshakes."""
    return handshake(papers, ssl.TLSVersion.TLSv1_2)[1]


@given(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=4))
def test_records_are_the_same_in_any_pieces(stream: bytes, cuts: list[float]) -> None:
    places = sorted({int(cut * len(stream)) for cut in cuts})
    reader, names = RecordReader(), []
    for begin, end in zip([0, *places], [*places, len(stream)], strict=True):
        names += reader.feed(stream[begin:end])
    assert [name for name in names if name in {"ChangeCipherSpec", "encrypted handshake"}] == [
        "ChangeCipherSpec",
        "encrypted handshake",
    ]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_break_a_reader(pieces: list[bytes]) -> None:
    for reader in (RecordReader(), LineReader()):
        for piece in pieces:
            assert all(isinstance(name, str) and name.isprintable() for name in reader.feed(piece))


def test_other_protocols_are_reported_once() -> None:
    reader = RecordReader()
    assert reader.feed(b"HTTP/1.1 400 Bad Request\r\n") == ["no TLS record"]
    assert reader.feed(b"more") == ["?"]


def test_the_first_line_of_http() -> None:
    reader = LineReader()
    assert reader.feed(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n") == ["GET /a HTTP/1.1"]
    assert reader.feed(b"body") == ["data"]
