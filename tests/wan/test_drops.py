"""Tests for drop rules: they match the last acknowledgement of a close and no other segment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packets import CLIENT, SERVER, tcp, udp
from wan import SettingError
from wan.drops import MAX_FLOWS, DropRule, Pattern, Segment

SYN, ACK, FIN, PSH = 2, 16, 1, 8


def back(data: bytes = b"", flags: int = ACK, *, seq: int = 1, ack: int = 1, port: int = 40_000) -> bytes:
    return tcp(data, flags, seq=seq, ack=ack, source=SERVER, target=CLIENT, ports=(443, port))


#: Segments of a connection that the client closes first, from its last request on; the server's response ends at 501.
CLOSE = [
    tcp(b"x" * 99, PSH | ACK, seq=1, ack=1),
    back(b"y" * 500, PSH | ACK, seq=1, ack=100),
    tcp(b"", ACK, seq=100, ack=501),
    tcp(b"", FIN | ACK, seq=100, ack=501),
    back(b"", FIN | ACK, seq=501, ack=101),
    tcp(b"", ACK, seq=101, ack=501),  # sent before the server's FIN arrived: acknowledges only the response
    tcp(b"", ACK, seq=101, ack=502),  # the last acknowledgement
    tcp(b"", ACK, seq=101, ack=502),  # repeated for the retransmitted FIN
]


def dropped(rule: DropRule, packets: list[bytes]) -> list[int]:
    return [number for number, packet in enumerate(packets) if rule.drops(packet, number)]


def test_the_last_acknowledgement_of_a_close_is_dropped() -> None:
    rule = DropRule(Pattern.of({"source": CLIENT, "port": 443, "flags": "ack", "acknowledges_fin": True}))
    assert dropped(rule, CLOSE) == [6]
    assert rule.spent
    assert rule.as_dict()["dropped"] == [
        {
            "at_ns": 6, "source": CLIENT, "source_port": 40_000, "target": SERVER, "target_port": 443,
            "flags": "ack", "seq": 101, "ack": 502, "length": 0,
        }
    ]  # fmt: skip


def test_a_fin_at_the_end_of_the_sequence_space_is_acknowledged_after_the_wrap() -> None:
    rule = DropRule(Pattern.of({"acknowledges_fin": True, "flags": "ack"}))
    assert dropped(rule, [back(b"", FIN | ACK, seq=2**32 - 1), tcp(b"", ACK, ack=2**32 - 1), tcp(b"", ACK, ack=0)]) == [
        2
    ]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"flags": "fin+ack"}, [3]),
        ({"flags": "ack+fin", "count": 2}, [3, 4]),
        ({"target": CLIENT, "count": 9}, [1, 4]),
        ({"source": CLIENT, "flags": "ack", "count": 9}, [0, 2, 5, 6, 7]),
        ({"flags": "rst"}, []),
        ({"port": 80}, []),
        ({"port": 40_000}, [0]),
    ],
    ids=str,
)
def test_every_field_of_a_pattern_must_match(values, numbers) -> None:
    assert dropped(DropRule(Pattern.of(values)), CLOSE) == numbers


def test_only_complete_tcp_segments_are_dropped() -> None:
    rule = DropRule(Pattern.of({"count": 9}))
    assert dropped(rule, [udp(b"x"), b"", b"\x45" * 40, CLOSE[0][:30], CLOSE[0]]) == [4]


def test_the_number_of_remembered_closes_is_bounded() -> None:
    rule = DropRule(Pattern.of({"acknowledges_fin": True}))
    for port in range(MAX_FLOWS + 10):
        rule.drops(back(b"", FIN | ACK, port=port), 0)
    assert len(rule._closing) == MAX_FLOWS


@given(st.binary(max_size=80) | st.binary(min_size=36, max_size=80).map(lambda tail: b"\x45\0\0\x30" + tail))
def test_no_input_raises_or_is_dropped_by_mistake(data) -> None:
    assert not DropRule(Pattern.of({"port": 443, "flags": "syn", "acknowledges_fin": True})).drops(data, 0)
    segment = Segment.of(data)
    assert segment is None or segment.length >= 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected a JSON object with some of source, target"),
        ({}, "expected a JSON object with some of source, target"),
        ({"source": "client"}, "expected source to be an IPv4 address, got 'client'"),
        ({"port": 0}, "expected port to be a whole number between 1 and 65535, got 0"),
        ({"count": 1001}, "expected count to be a whole number between 1 and 1000, got 1001"),
        ({"flags": "urg"}, "expected flags to be some of fin, syn, rst, ack joined by '+', got 'urg'"),
        ({"flags": 16}, "expected flags to be some of fin"),
        ({"acknowledges_fin": 1}, "expected acknowledges_fin to be true or false, got 1"),
        (
            {"after": "fin"},
            "expected one of source, target, port, flags, acknowledges_fin, count, replay_ms, got 'after'",
        ),
    ],
    ids=str,
)
def test_an_invalid_pattern_is_refused(values, message) -> None:
    with pytest.raises(SettingError) as refused:
        Pattern.of(values)
    assert str(refused.value).startswith(message)
