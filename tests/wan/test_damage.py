"""Tests for payload corruption: its effect on the checksum, and the fields that must not change."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packets import ipv4, is_valid, tcp, udp
from wan.damage import MODES, payload


def damaged_by(mode: str, packet: bytes, rng: random.Random, k: int = 1) -> bytes:
    """Return the packet corrupted by *mode*; fail if it cannot be corrupted."""
    damaged = MODES[mode](packet, rng, k)
    assert damaged is not None
    return damaged


packets = st.builds(
    lambda make, data: make(data), st.sampled_from([tcp, udp]), st.binary(min_size=1, max_size=200)
) | st.builds(lambda data: tcp(data, options=bytes(12)), st.binary(min_size=1, max_size=1448))
seeds = st.integers(0, 2**32).map(random.Random)


@given(packets, seeds)
def test_a_flipped_bit_breaks_the_checksum(packet, rng) -> None:
    assert is_valid(packet)
    damaged = damaged_by("bitflip", packet, rng)
    assert sum((a ^ b).bit_count() for a, b in zip(packet, damaged, strict=True)) == 1
    assert not is_valid(damaged)


@pytest.mark.parametrize("mode", ["swap16", "plusminus"])
@given(packets, seeds, st.sampled_from([1, 255, 65_535]))
def test_swapped_or_balanced_words_keep_the_checksum_valid(mode, packet, rng, k) -> None:
    damaged = MODES[mode](packet, rng, k)
    if damaged is not None:
        assert damaged != packet
        assert is_valid(damaged)


@pytest.mark.parametrize("mode", MODES)
@given(packets, seeds)
def test_only_the_payload_changes_and_no_length(mode, packet, rng) -> None:
    damaged = MODES[mode](packet, rng, 1)
    if damaged is not None:
        assert damaged != packet
        start, end = payload(packet) or (0, 0)
        assert (damaged[:start], damaged[end:], len(damaged)) == (packet[:start], packet[end:], len(packet))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_corrupts_an_ordinary_segment(mode) -> None:
    packet = tcp(bytes(range(200)))
    assert all(MODES[mode](packet, random.Random(seed), 1) for seed in range(50))


@pytest.mark.parametrize("k", [1, 300])
def test_plusminus_adds_k_to_one_word_and_subtracts_it_from_another(k) -> None:
    words = [3, 500, 1000, 60_000]
    packet = tcp(b"".join(word.to_bytes(2, "big") for word in words))
    damaged = damaged_by("plusminus", packet, random.Random(1), k)[40:]
    changes = [int.from_bytes(damaged[2 * n : 2 * n + 2], "big") - word for n, word in enumerate(words)]
    assert sorted(changes) == [-k, 0, 0, k]


def test_a_random_burst_passes_the_checksum_about_once_in_65535_times() -> None:
    rng, packet = random.Random(2), tcp(bytes(64))
    damaged = [damaged_by("random", packet, rng) for _ in range(3000)]
    # On average, 0.05 of the 3,000 packets pass the checksum, so more than 3 are practically impossible.
    assert sum(is_valid(each) for each in damaged) <= 3


@pytest.mark.parametrize(
    "packet",
    [
        tcp(b"", 0x10),
        udp(b""),
        ipv4(1, bytes(64)),
        ipv4(6, bytes(64), fragment=0x2000),
        ipv4(17, bytes(64), fragment=0x0010),
        b"\x60" + tcp(bytes(64))[1:],
        tcp(bytes(64))[:60],
        b"",
    ],
    ids=["pure-ack", "empty-datagram", "icmp", "first-fragment", "later-fragment", "ipv6", "truncated", "empty"],
)
def test_a_packet_without_a_usable_payload_is_left_alone(packet) -> None:
    assert payload(packet) is None
    assert not any(damage(packet, random.Random(0), 1) for damage in MODES.values())


def test_equal_words_cannot_be_swapped_and_zeros_cannot_be_reduced() -> None:
    assert MODES["swap16"](tcp(b"ab" * 100), random.Random(0), 1) is None
    assert MODES["plusminus"](tcp(bytes(100)), random.Random(0), 1) is None


@given(st.binary(max_size=120) | st.binary(min_size=24, max_size=60).map(lambda tail: b"\x45\0\0\x30" + tail), seeds)
def test_no_input_raises_in_any_mode(data, rng) -> None:
    for damage in MODES.values():
        damaged = damage(data, rng, 1)
        assert damaged is None or (len(damaged) == len(data) and damaged != data)
