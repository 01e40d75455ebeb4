"""Tests for the types of QUIC packets, with hand-made headers and with a datagram from aioquic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireformat.quic import packet_types

VERSION, IDS = b"\x00\x00\x00\x01", b"\x08" + bytes(8) + b"\x00"
INITIAL = b"\xc3" + VERSION + IDS + b"\x03abc" + b"\x40\x50" + bytes(80)
EARLY = b"\xd0" + VERSION + IDS + b"\x10" + bytes(16)
HANDSHAKE = b"\xe1" + VERSION + IDS + b"\x80\x00\x00\x07" + bytes(7)
RETRY = b"\xf0" + VERSION + IDS + bytes(40)
SHORT = b"\x41" + bytes(30)


@pytest.mark.parametrize(
    ("datagram", "types"),
    [
        pytest.param(INITIAL, ["Initial"], id="a-token-and-a-length-of-two-bytes"),
        pytest.param(INITIAL + EARLY, ["Initial", "0-RTT"], id="early-data-shares-the-first-datagram"),
        pytest.param(INITIAL + HANDSHAKE + SHORT, ["Initial", "Handshake", "1-RTT"], id="three-packets"),
        pytest.param(SHORT + INITIAL, ["1-RTT"], id="a-short-header-is-the-last"),
        pytest.param(RETRY, ["Retry"], id="retry-has-no-length"),
        pytest.param(HANDSHAKE + bytes(20), ["Handshake"], id="padding-behind-a-packet"),
        pytest.param(INITIAL[:-1], [], id="cut-off"),
        pytest.param(INITIAL[:9], [], id="cut-off-in-a-connection-id"),
        pytest.param(INITIAL + HANDSHAKE[:17], ["Initial"], id="cut-off-in-the-length-of-the-second"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_the_types_of_the_packets_in_a_datagram(datagram, types):
    assert packet_types(datagram) == types


@given(st.binary(max_size=60))
def test_no_datagram_raises(datagram):
    assert len(packet_types(datagram)) <= len(datagram)


def test_the_first_datagrams_of_aioquic():
    pytest.importorskip("aioquic", reason="aioquic is an optional dependency of firstbyte")
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection

    client = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name="quic.example.com"))
    client.connect(("192.0.2.1", 443), now=0.0)
    datagrams = [data for data, _ in client.datagrams_to_send(now=0.0)]
    assert [packet_types(data) for data in datagrams] == [["Initial"]] * len(datagrams)
