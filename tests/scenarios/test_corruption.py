"""Tests that compare corrupted responses with the bytes that were sent; the code of `wan` corrupts the responses."""

import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.instruments.corruption import Fetch, K, body, compare, delivered, same_head, total, wrong_bytes
from tests.packets import tcp
from wan import damage

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 3000\r\ndate: Tue, 24 Nov 2026 22:27:05 GMT\r\n"
    b'server-timing: pool;dur=0.041;desc="reused"\r\n\r\n'
)


def corrupt(mode: str, segment: bytes, seed: int) -> bytes:
    """Return the payload of *segment* after one corruption of kind *mode*."""
    packet = tcp(segment)
    damaged = damage.MODES[mode](packet, random.Random(seed), K)
    assert damaged is not None
    return damaged[-len(segment) :]


@given(begin=st.integers(0, 5000), length=st.integers(16, 1448), seed=st.integers(0, 999))
@pytest.mark.parametrize("mode", ["swap16", "plusminus"])
def test_corruption_that_keeps_the_sum_leaves_exactly_four_wrong_bytes(
    mode: str, begin: int, length: int, seed: int
) -> None:
    expected = body(10_000)[begin : begin + length]
    assert wrong_bytes(corrupt(mode, expected, seed), expected) == 4


def test_a_flipped_bit_is_one_wrong_byte() -> None:
    assert wrong_bytes(corrupt("bitflip", body(1448), 1), body(1448)) == 1


@pytest.mark.parametrize(
    ("wrong", "head_is_wrong", "packets"),
    [
        pytest.param(0, False, 0, id="nothing"),
        pytest.param(4, False, 1, id="in-the-body"),
        pytest.param(0, True, 1, id="in-the-head"),
        pytest.param(2, True, 1, id="one-word-in-each"),
        pytest.param(10, True, 3, id="two-and-a-half"),
        pytest.param(8, True, 3, id="two-and-the-head"),
    ],
)
def test_wrong_bytes_are_counted_back_into_packets(wrong: int, head_is_wrong: bool, packets: int) -> None:
    assert delivered(wrong, head_is_wrong=head_is_wrong) == packets


def test_heads_that_differ_only_in_times_are_the_same() -> None:
    other = HEAD.replace(b"22:27:05", b"09:01:59").replace(b"0.041", b"12.3").replace(b"reused", b"new")
    assert same_head(other, HEAD)


@pytest.mark.parametrize("seed", range(20))
def test_a_head_with_swapped_words_is_different(seed: int) -> None:
    assert not same_head(corrupt("swap16", HEAD, seed), HEAD)


def test_the_body_of_a_complete_response_is_compared() -> None:
    stream = bytearray(HEAD + body(3000))
    at = len(HEAD) + 100
    stream[at : at + 2], stream[at + 50 : at + 52] = stream[at + 50 : at + 52], stream[at : at + 2]
    fetch = compare(bytes(stream), 3000, HEAD, ended=False, corrupted=1)
    assert fetch == Fetch(1, 1, 4, 3000, 0, False, False)


def test_the_crc_of_the_body_does_not_cover_the_head() -> None:
    fetch = compare(corrupt("swap16", HEAD, 1) + body(3000), 3000, HEAD, ended=False, corrupted=1)
    assert (fetch.head_is_wrong, fetch.crc_holds, fetch.delivered) == (True, True, 1)


def test_a_truncated_response_is_compared_as_far_as_it_arrived() -> None:
    fetch = compare(HEAD + body(3000)[:1000], 3000, HEAD, ended=True, corrupted=1)
    assert (fetch.wrong, fetch.received, fetch.ended, fetch.crc_holds) == (0, 1000, True, False)


def test_a_failed_handshake_delivers_nothing() -> None:
    fetch = compare(b"", 3000, HEAD, ended=True, corrupted=1)
    assert (fetch.wrong, fetch.received, fetch.delivered) == (0, 0, 0)


def test_a_crc_detects_every_swap() -> None:
    right = body(1448)
    for seed in range(200):
        assert zlib.crc32(corrupt("swap16", right, seed)) != zlib.crc32(right)


def test_counts_are_summed_by_name() -> None:
    one = Fetch(1, 1, 4, 3000, 0, False, False)
    assert (total([one, replace(one, corrupted=2)], "corrupted"), total([], "wrong")) == (3, 0)
