"""Headers: every field of a frame that is known, and no frame that breaks the decoder."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waterfall.conftest import CLIENT, SERVER, frame, segment
from waterfall.headers import HeaderError, decode, describe, internet_checksum

SYN_OPTIONS = bytes.fromhex("020405b4 0402 080a 00000001 00000000 01 030307".replace(" ", ""))


def test_every_field_of_a_syn() -> None:
    packet = decode(frame(0, False, segment(CLIENT, SERVER, "S", 0xFFFFFFFF, options=SYN_OPTIONS)).data)
    assert packet.ethernet.source == "02:00:c6:13:01:0a"
    assert packet.ethernet.destination == "02:00:c6:13:00:fe"
    assert (packet.ip.source, packet.ip.destination, packet.ip.ttl) == ("198.19.1.10", "198.19.20.10", 64)
    assert packet.ip.dont_fragment
    assert packet.ip.checksum_ok
    tcp = packet.tcp
    assert tcp is not None
    assert (tcp.source_port, tcp.destination_port, tcp.seq) == (40_000, 443, 0xFFFFFFFF)
    assert tcp.flags == {"SYN"}
    assert tcp.checksum_ok
    assert [describe(*each) for each in tcp.options] == ["mss 1460", "sackOK", "ts 1 0", "wscale 7"]
    assert packet.payload == b""


def test_octets_behind_the_ip_packet_are_padding_of_ethernet() -> None:
    padded = frame(0, False, segment(CLIENT, SERVER, "PA", 1, 1, b"abc")).data + bytes(6)
    assert decode(padded).payload == b"abc"


def test_one_flipped_bit_shows_in_the_checksum() -> None:
    data = bytearray(frame(0, False, segment(CLIENT, SERVER, "PA", 1, 1, b"abc")).data)
    data[-1] ^= 1
    tcp = decode(bytes(data)).tcp
    assert tcp is not None
    assert not tcp.checksum_ok


def test_a_later_fragment_has_no_ports() -> None:
    data = bytearray(frame(0, False, segment(CLIENT, SERVER, "A", 1, 1)).data)
    data[20:22] = struct.pack("!H", 185)
    assert decode(bytes(data)).transport is None


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("0101050a0000000100000009", ["sack 1-9"]),
        ("fe04beef", ["option 254"]),
        ("01010204", ["option 2"]),
        ("0200", ["option 2"]),
        ("00020405", []),
        ("02", ["option 2"]),
    ],
    ids=["sack", "experiment", "cut", "length-0", "end", "kind-only"],
)
def test_options_that_are_odd(options: str, shown: list[str]) -> None:
    data = bytes.fromhex(options)
    packet = segment(CLIENT, SERVER, "A", 1, 1, options=data.ljust(-(-len(data) // 4) * 4, b"\0"))
    tcp = decode(frame(0, False, packet).data).tcp
    assert tcp is not None
    assert [describe(*each) for each in tcp.options] == shown


@given(st.binary(max_size=120))
def test_no_octets_break_the_decoder(data: bytes) -> None:
    for each in (data, bytes(12) + b"\x08\x00" + data, bytes(12) + b"\x08\x00\x45" + data):
        try:
            packet = decode(each)
        except HeaderError:
            continue
        assert len(packet.payload) <= len(each)
        for kind, value in packet.tcp.options if packet.tcp else ():
            assert describe(kind, value)


@given(st.data())
def test_no_cut_or_changed_octet_breaks_the_decoder(data: st.DataObject) -> None:
    whole = bytearray(frame(0, False, segment(CLIENT, SERVER, "PA", 1, 1, b"x" * 20, options=SYN_OPTIONS)).data)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except HeaderError:
        return  # the one error that there is


def test_the_example_of_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
