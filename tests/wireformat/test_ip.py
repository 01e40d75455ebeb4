"""Tests for header decoding: all fields of a known frame, and arbitrary bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packets import ipv4, tcp, udp
from tests.waterfall.conftest import CLIENT, SERVER, frame, segment
from wireformat.ip import MSS, HeaderError, checksum, decode, decode_frame, describe

SYN_OPTIONS = bytes.fromhex("020405b4 0402 080a 00000001 00000000 01 030307".replace(" ", ""))


def test_every_field_of_a_syn() -> None:
    found = decode_frame(frame(0, False, segment(CLIENT, SERVER, "S", 0xFFFFFFFF, options=SYN_OPTIONS)).data)
    assert (found.source, found.destination) == ("02:00:c6:13:01:0a", "02:00:c6:13:00:fe")
    packet = found.packet
    assert (packet.source, packet.destination) == (CLIENT, SERVER)
    assert (packet.ip.ttl, packet.ip.dont_fragment, packet.ip.more_fragments) == (64, True, False)
    assert packet.header_checksum_ok
    assert packet.transport_checksum_ok
    tcp = packet.tcp
    assert tcp is not None
    assert tcp.flags == {"SYN"}
    assert (tcp.seq, tcp.window, tcp.option(MSS)) == (0xFFFFFFFF, 64_240, b"\x05\xb4")
    assert [describe(*each) for each in tcp.options] == ["mss 1460", "sackOK", "ts 1 0", "wscale 7"]
    assert packet.payload == b""


def test_a_datagram_has_ports_payload_and_a_checksum() -> None:
    packet = decode(udp(b"abc"))
    assert packet.udp is not None
    assert (packet.source[1], packet.destination[1], packet.udp.length, packet.payload) == (40_000, 53, 11, b"abc")
    assert packet.transport_checksum_ok


def test_bytes_after_the_ip_packet_are_padding_of_ethernet() -> None:
    padded = frame(0, False, segment(CLIENT, SERVER, "PA", 1, 1, b"abc")).data + bytes(6)
    assert decode_frame(padded).packet.payload == b"abc"


def test_one_flipped_bit_makes_the_checksum_invalid() -> None:
    data = bytearray(segment(CLIENT, SERVER, "PA", 1, 1, b"abc"))
    data[-1] ^= 1
    packet = decode(bytes(data))
    assert (packet.header_checksum_ok, packet.transport_checksum_ok) == (True, False)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(6, bytes(64), fragment=185),
        ipv4(1, bytes(64)),
        ipv4(6, bytes(19)),
        ipv4(17, bytes(7)),
        ipv4(6, bytes(64)),
    ],
    ids=["later-fragment", "icmp", "cut-tcp", "cut-udp", "tcp-header-length-0"],
)
def test_without_a_usable_transport_header_there_are_no_ports(packet: bytes) -> None:
    found = decode(packet)
    assert (found.transport, found.source, found.payload) == (None, (CLIENT[0], 0), packet[20:])


@pytest.mark.parametrize(
    "data",
    [b"", tcp(b"x")[:19], tcp(b"x")[:-1], b"\x60" + tcp()[1:], b"\x44" + tcp()[1:], tcp()[:2] + b"\0\x13" + tcp()[4:]],
    ids=["nothing", "cut-header", "cut-payload", "version-6", "header-length-16", "total-length-19"],
)
def test_what_is_no_ipv4_packet_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderError, match="expected"):
        decode(data)


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
    tcp = decode(packet).tcp
    assert tcp is not None
    assert [describe(*each) for each in tcp.options] == shown


@given(st.binary(max_size=120))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    for each in (data, bytes(12) + b"\x08\x00" + data, bytes(12) + b"\x08\x00\x45" + data):
        try:
            packet = decode_frame(each).packet
        except HeaderError:
            continue
        assert len(packet.payload) <= len(each)
        for kind, value in packet.tcp.options if packet.tcp else ():
            assert describe(kind, value)


@given(st.data())
def test_no_cut_or_changed_byte_breaks_the_decoder(data: st.DataObject) -> None:
    whole = bytearray(frame(0, False, segment(CLIENT, SERVER, "PA", 1, 1, b"x" * 20, options=SYN_OPTIONS)).data)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HeaderError):
        decode_frame(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_the_example_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
