"""Tests for packet analysis: pairing of frames into passages, decoding into rows, TCP states and round trips."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import Ladder
from reports.drawing import svg
from tests.packets import udp
from tests.waterfall.conftest import CLIENT, MS, SERVER, frame, segment
from waterfall.capture import client_pcap
from waterfall.packets import dissect, dissect_quic
from waterfall.passages import round_trips, tcp_passages
from wireformat.ip import decode_frame
from wireformat.pcap import LINKTYPE_ETHERNET, file_header
from wireformat.pcapng import Frame, Recording

Packet = tuple[float, tuple[str, int], str, int, int, bytes]
#: Segments of a GET over plain HTTP with a round-trip time of 20 ms, as tuples of sending time in ms, sender, flags,
#: sequence number, acknowledgement number and payload.
EXCHANGE: list[Packet] = [
    (0, CLIENT, "S", 100, 0, b""),
    (10, SERVER, "SA", 300, 101, b""),
    (20, CLIENT, "A", 101, 301, b""),
    (20.1, CLIENT, "PA", 101, 301, b"GET / HTTP/1.1\r\n\r\n"),
    (30.1, SERVER, "A", 301, 119, b""),
    (31, SERVER, "PA", 301, 119, b"HTTP/1.1 200 OK\r\n\r\n"),
    (41.1, CLIENT, "FA", 119, 320, b""),
    (51.2, SERVER, "FA", 320, 120, b""),
    (61.3, CLIENT, "A", 120, 321, b""),
]


def network(packets: list[Packet], lost: tuple[int, ...] = ()) -> list[Frame]:
    """Return the frames of *packets*: as they enter the network and, 10 ms and two hops later, as they leave it."""
    frames = []
    for number, (at, by, flags, seq, ack, payload) in enumerate(packets):
        target = SERVER if by == CLIENT else CLIENT
        for later, ttl in ((0, 64),) if number in lost else ((0, 64), (10, 62)):
            sent = segment(by, target, flags, seq, ack, payload, ttl=ttl, identification=number)
            frames.append(frame(at + later, later > 0, sent))
    return sorted(frames, key=lambda each: each.time_ns)


def rows(packets: list[Packet], lost: tuple[int, ...] = ()) -> list[dict]:
    found = dissect(Recording(tuple(network(packets, lost))), CLIENT, SERVER, began_ns=0, first_byte_ms=41, tls=False)
    return found["packets"]


def test_a_whole_exchange() -> None:
    kernel = [(21 * MS, 21 * MS, "ESTABLISHED"), (42 * MS, 42 * MS, "FIN-WAIT-1"), (61 * MS, 61 * MS, "TIME-WAIT")]
    recording = Recording(tuple(network(EXCHANGE)))
    found = dissect(recording, CLIENT, SERVER, began_ns=0, first_byte_ms=41.0, kernel_states=kernel, tls=False)
    assert [row["what"] for row in found["packets"]] == [
        "SYN",
        "SYN-ACK",
        "ACK",
        "GET / HTTP/1.1",
        "ACK",
        "HTTP/1.1 200 OK",
        "FIN",
        "FIN",
        "ACK",
    ]
    assert [(s["ms"], s["host"], s["state"]) for s in found["states"]] == [
        (0, "client", "SYN-SENT"),
        (10, "server", "SYN-RECEIVED"),
        (20, "client", "ESTABLISHED"),
        (30, "server", "ESTABLISHED"),
        (41.1, "client", "FIN-WAIT-1"),
        (51.1, "server", "CLOSE-WAIT"),
        (51.2, "server", "LAST-ACK"),
        (61.2, "client", "FIN-WAIT-2"),
        (61.2, "client", "TIME-WAIT"),
        (71.3, "server", "CLOSED"),
    ]
    assert [check["agrees"] for check in found["kernel"]] == [True, True, True]
    assert found["round_trips"] == 2
    first = found["packets"][0]
    assert (first["ip"]["ttl_sent"], first["ip"]["ttl_arrived"]) == (64, 62)
    assert first["ethernet"]["sent"]["source"] == found["client"]["mac"] == "02:00:c6:13:01:0a"
    assert first["ethernet"]["arrived"]["destination"] == found["server"]["mac"] == "02:00:c6:13:14:0a"
    assert (found["packets"][5]["tcp"]["relative_seq"], found["packets"][5]["tcp"]["relative_ack"]) == (1, 19)
    assert json.loads(json.dumps(found)) == found


def test_a_disagreeing_kernel_state_is_reported() -> None:
    recording = Recording(tuple(network(EXCHANGE)))
    # Each tuple gives the times before and after the state was read.  The second state was read at some time between
    # 15 and 30 ms, so it agrees if the segments imply it at any time in this interval.
    kernel = [(15 * MS, 15 * MS, "ESTABLISHED"), (15 * MS, 30 * MS, "SYN-SENT")]
    found = dissect(recording, CLIENT, SERVER, began_ns=0, first_byte_ms=41.0, kernel_states=kernel, tls=False)
    assert found["kernel"] == [
        {"ms": 15.0, "kernel": "ESTABLISHED", "segments": "SYN-SENT", "agrees": False},
        {"ms": 30.0, "kernel": "SYN-SENT", "segments": "ESTABLISHED", "agrees": True},
    ]


def test_a_lost_segment_is_shown_and_its_retransmission_carries_the_data() -> None:
    lost = [*EXCHANGE[:4], (230.0, *EXCHANGE[3][1:])]
    shown = rows(lost, lost=(3,))
    assert [(row["what"], row["arrived_ms"]) for row in shown[3:]] == [
        ("lost on the way", None),
        ("retransmission: GET / HTTP/1.1", 240.0),
    ]


def test_segments_after_a_loss_are_ahead_of_a_gap_until_it_is_filled() -> None:
    response = [b"HTTP/1.1 200 OK\r\n\r\n", b"lost", b"late", b"more"]
    seqs = [301, 320, 324, 328]
    sent: list[Packet] = [
        (31.0 + 20 * i, SERVER, "PA", seq, 119, data) for i, (seq, data) in enumerate(zip(seqs, response, strict=True))
    ]
    again: Packet = (120.0, SERVER, "PA", 320, 119, b"lost")
    last: Packet = (140.0, SERVER, "PA", 332, 119, b"last")
    shown = rows([*EXCHANGE[:5], *sent, again, last], lost=(6,))
    whats = [row["what"] for row in shown[5:]]
    assert whats == [
        "HTTP/1.1 200 OK", "lost on the way", "ahead of a gap", "ahead of a gap", "retransmission: data", "data",
    ]  # fmt: skip


def test_a_closed_window_is_probed_with_an_old_sequence_number() -> None:
    frames = network(EXCHANGE[:6])
    full = segment(CLIENT, SERVER, "A", 119, 320, window=0, identification=20)
    probe = segment(SERVER, CLIENT, "A", 319, 119, identification=21)
    for at, packet in ((60, full), (300, probe), (320, full), (360, probe)):
        frames += [frame(at, False, packet), frame(at + 10, True, packet)]
    found = dissect(Recording(tuple(frames)), CLIENT, SERVER, began_ns=0, first_byte_ms=41, tls=False)
    whats = [row["what"] for row in found["packets"][6:]]
    assert whats == ["zero window", "zero-window probe", "zero window", "zero-window probe"]


def test_a_segment_that_arrives_twice_is_a_retransmission() -> None:
    assert [row["what"] for row in rows([*EXCHANGE[:4], (230.0, *EXCHANGE[3][1:])])[3:]] == [
        "GET / HTTP/1.1",
        "retransmission",
    ]


def test_a_gso_frame_arrives_as_its_segments() -> None:
    payload = b"".join(bytes([65 + i]) * 1448 for i in range(3))
    frames = [frame(0, False, segment(SERVER, CLIENT, "PA", 1000, 5, payload))]
    for i in range(3):
        part = payload[i * 1448 : (i + 1) * 1448]
        frames.append(
            frame(
                10 + i / 10,
                True,
                segment(SERVER, CLIENT, "PA" if i == 2 else "A", 1000 + i * 1448, 5, part, identification=7 + i),
            )
        )
    passages = tcp_passages(frames, CLIENT, SERVER)
    assert [(p.sent_ns, len(p.packet.payload)) for p in passages] == [(0, 1448)] * 3


def test_a_packet_is_one_passage_although_it_is_captured_twice() -> None:
    assert len(tcp_passages(network(EXCHANGE), CLIENT, SERVER)) == len(EXCHANGE)


@pytest.mark.parametrize(("until_ms", "trips"), [(15, 0), (20, 1), (41, 2), (100, 2)])
def test_round_trips_until_a_time(until_ms: float, trips: int) -> None:
    passages = tcp_passages(network(EXCHANGE), CLIENT, SERVER)
    assert round_trips(passages, CLIENT, round(until_ms * MS)) == trips


def test_a_pcap_has_each_packet_once_at_the_client_s_end() -> None:
    data = client_pcap(Recording(tuple(network(EXCHANGE))), CLIENT[0], [])
    header = file_header(LINKTYPE_ETHERNET)
    assert data.startswith(header)
    at, times = len(header), []
    while at < len(data):
        times.append(int.from_bytes(data[at + 4 : at + 8], "little") / MS)
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        decode_frame(data[at + 16 : at + 16 + size])
        at += 16 + size
    assert times == [0, 20, 20, 20.1, 40.1, 41, 41.1, 61.2, 61.3]


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.binary(max_size=60)), max_size=6), st.data())
def test_no_frames_break_the_dissection(strange: list[tuple[int, bool, bytes]], data: st.DataObject) -> None:
    frames = network(EXCHANGE)
    kept = [each for each in frames if data.draw(st.booleans())]
    odd = [Frame(at * MS, outbound, bytes(12) + b"\x08\x00" + payload) for at, outbound, payload in strange]
    found = dissect(Recording(tuple(kept + odd)), CLIENT, SERVER, began_ns=0, first_byte_ms=41, tls=True)
    assert len(found["packets"]) <= len(frames)


def test_dns_is_shown_with_its_question_and_rcode() -> None:
    query = bytes.fromhex("beef0100000100000000000003777777076578616d706c6503636f6d0000010001")
    reply = query[:2] + b"\x81\x83" + query[4:]
    frames = [frame(0, False, udp(query)), frame(5, False, udp(reply)), frame(9, False, udp(query[:20]))]
    found = dissect(Recording(tuple(frames)), CLIENT, SERVER, began_ns=0, first_byte_ms=41)
    assert [row["what"] for row in found["packets"]] == [
        "DNS query: www.example.com. A",
        "DNS NXDOMAIN: www.example.com. A",
        "datagram",
    ]


@given(st.binary(max_size=60))
def test_no_datagram_breaks_the_dissection(payload: bytes) -> None:
    frames = (frame(0, False, udp(payload)),)
    (row,) = dissect(Recording(frames), CLIENT, SERVER, began_ns=0, first_byte_ms=41)["packets"]
    assert row["what"]


def test_a_quic_connection_is_a_row_per_datagram_with_the_types_of_its_packets() -> None:
    handshake = b"\xe1\x00\x00\x00\x01\x00\x00\x03abc"
    there, back = (CLIENT[1], 443), (443, CLIENT[1])
    server = (SERVER[0], 443)
    sent = [
        (5, handshake, CLIENT[0], server[0], there),
        (16, handshake + b"\x41abc", server[0], CLIENT[0], back),
        (27, b"\x41lost", CLIENT[0], server[0], there),
    ]
    frames = [frame(at, False, udp(data, a, b, ports=ports)) for at, data, a, b, ports in sent]
    frames += [frame(at + 10, True, udp(data, a, b, ports=ports)) for at, data, a, b, ports in sent[:2]]
    other = frame(6, False, udp(b"\x41", CLIENT[0], server[0], ports=(1, 443)))
    found = dissect_quic(Recording((*frames, other)), CLIENT, server)
    shown = [
        (row["from"], row["sent_ms"], row["arrived_ms"], row["what"], row["udp"]["length"]) for row in found["packets"]
    ]
    assert shown == [
        ("client", 0, 10, "Handshake", 11),
        ("server", 11, 21, "Handshake + 1-RTT", 15),
        ("client", 22, None, "lost on the way", 5),
    ]
    picture = svg(Ladder("QUIC", found), standalone=True)
    assert "Handshake + 1-RTT (15 B)" in picture
    assert "QUIC</text>" in picture
    assert "QUIC</text>" not in svg(Ladder("QUIC", found))
