"""Packet analysis of one connection: every segment at both ends, the TCP states it caused, and round trips.

Sans-IO: the input is captured frames, the output is ``packets`` of ``trace --json``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dnsmessage import DnsMessageError, decode_query, question_end, rcode_to_text, rdtypes
from waterfall.passages import End, Passage, dns_passages, round_trips, tcp_passages, udp_passages
from waterfall.records import LineReader, RecordReader, counted
from waterfall.tcp_state import CLOSED, LISTEN, MODULUS, Endpoint, Segment, before
from wireformat.ip import EthernetFrame, Packet, Tcp, describe
from wireformat.pcapng import Recording
from wireformat.quic import packet_types

#: Maximum difference between the times of a socket's state change and of the related frame, in nanoseconds.  A process
#: may have to wake up in between.
SLACK_NS = 3_000_000


@dataclass(slots=True)
class _Direction:
    """Sequence state of one direction of the connection."""

    reader: RecordReader | LineReader
    first: int | None = None
    expected: int | None = None
    #: Window scale option (RFC 7323) that the sender of this direction announced.
    scale: int = 0
    #: Whether the last segment of this direction announced a window of 0.
    closed: bool = False
    #: Payloads that arrived after a gap in the stream, by sequence number.
    ahead: dict[int, bytes] = field(default_factory=dict)
    #: Sequence numbers of lost segments.
    lost: set[int] = field(default_factory=set)

    def arrived(self, seq: int, payload: bytes) -> str:
        """Return a description of a segment that continues the stream; process payloads that were waiting for it."""
        words = counted(self.reader.feed(payload))
        self.expected = (seq + len(payload)) % MODULUS
        while payload := self.ahead.pop(self.expected, b""):
            self.reader.feed(payload)
            self.expected = (self.expected + len(payload)) % MODULUS
        return f"retransmission: {words}" if seq in self.lost else words

    def relative(self, number: int) -> int:
        return (number - self.first) % MODULUS if self.first is not None else number


def dissect(
    recording: Recording,
    client: End,
    server: End,
    *,
    began_ns: int,
    first_byte_ms: float,
    kernel_states: Sequence[tuple[int, int, str]] = (),
    tls: bool = True,
) -> dict[str, Any]:
    """Return the ``packets`` object of one trace.

    Args:
        recording: frames captured at the router.
        client: address and port of the client.
        server: address and port of the server.
        began_ns: start of the trace in nanoseconds since the epoch; times in the result are milliseconds since then.
        first_byte_ms: time at which the first byte of the response arrived, in milliseconds since the start.
        kernel_states: states of the client's socket in its kernel: (time before reading, time after reading, state).
        tls: whether the connection uses TLS.
    """
    passages = tcp_passages(recording.frames, client, server)
    end_ns = began_ns + round(1e6 * max(first_byte_ms, 0))
    names_end = passages[0].sent_ns if passages else end_ns
    names = [each for each in dns_passages(recording.frames, client[0]) if began_ns <= each.sent_ns < names_end]
    states = _states(passages, client)
    directions = {end: _Direction(RecordReader() if tls else LineReader()) for end in (client, server)}
    rows = {id(each): _row(each, began_ns) for each in [*names, *passages]}
    for each in sorted(passages, key=lambda p: p.arrived_ns or p.sent_ns):
        _explain(each, rows[id(each)], client, directions)
    for each in names:
        rows[id(each)] |= _datagram(each, client[0])
    macs = _macs(passages, client[0])
    return {
        "client": {"address": client[0], "port": client[1], "mac": macs.get("client")},
        "server": {"address": server[0], "port": server[1], "mac": macs.get("server")},
        "router": {"client_side_mac": macs.get("to_client"), "server_side_mac": macs.get("to_server")},
        "dropped": recording.dropped,
        "round_trips": round_trips(passages, client, end_ns),
        "packets": [rows[id(each)] for each in [*names, *passages]],
        "states": [{"ms": _ms(at, began_ns), "host": host, "state": state} for at, host, state in states],
        "kernel": _compared(states, kernel_states, began_ns),
    }


def dissect_quic(recording: Recording, client: End, server: End) -> dict[str, Any]:
    """Return the ``packets`` object of one QUIC connection; times are milliseconds since its first datagram."""
    passages = udp_passages(recording.frames, client, server)
    began_ns = passages[0].sent_ns if passages else 0
    rows = []
    for each in passages:
        types = packet_types(each.packet.payload)
        words = "lost on the way" if each.left is None else " + ".join(types)
        rows.append({**_row(each, began_ns), **_datagram(each, client[0]), "what": words})
    ends = {name: {"address": end[0], "port": end[1]} for name, end in (("client", client), ("server", server))}
    return {**ends, "packets": rows, "states": []}


def _states(passages: Sequence[Passage], client: End) -> list[tuple[int, str, str]]:
    """Return all TCP state changes in chronological order: (nanoseconds, ``client`` or ``server``, state)."""
    ends = {"client": Endpoint(CLOSED), "server": Endpoint(LISTEN)}
    events = []
    for order, each in enumerate(passages):
        sender, receiver = ("client", "server") if each.packet.source == client else ("server", "client")
        events.append((each.sent_ns, order, sender, True, each))
        if each.arrived_ns is not None:
            events.append((each.arrived_ns, order, receiver, False, each))
    changes = []
    for at, _, host, sent, each in sorted(events, key=lambda event: event[:2]):
        end, known = ends[host], len(ends[host].history)
        (end.sent if sent else end.received)(_segment(each.packet))
        changes += [(at, host, state) for state in end.history[known:]]
    return changes


def _compared(
    states: Sequence[tuple[int, str, str]], kernel: Sequence[tuple[int, int, str]], began_ns: int
) -> list[dict[str, Any]]:
    """Compare the client's TCP states as implied by its segments with the states that its kernel reported."""
    own = [(0, CLOSED), *((at, state) for at, host, state in states if host == "client")]
    rows = []
    for began, ended, reported in kernel:
        current = [state for since, state in own if since <= began - SLACK_NS][-1:]
        near = [state for since, state in own if began - SLACK_NS < since <= ended + SLACK_NS]
        implied = [state for since, state in own if since <= ended][-1]
        agrees = reported in [*current, *near]
        rows.append({"ms": _ms(ended, began_ns), "kernel": reported, "segments": implied, "agrees": agrees})
    return rows


def _row(each: Passage, began_ns: int) -> dict[str, Any]:
    def macs(frame: EthernetFrame | None) -> dict[str, str] | None:
        return None if frame is None else {"source": frame.source, "destination": frame.destination}

    packet, left = each.packet, each.left
    return {
        "sent_ms": _ms(each.sent_ns, began_ns),
        "arrived_ms": None if each.arrived_ns is None else _ms(each.arrived_ns, began_ns),
        "ethernet": {"sent": macs(each.entered), "arrived": macs(left), "type": 0x0800},
        "ip": {
            "source": packet.ip.source,
            "destination": packet.ip.destination,
            "protocol": packet.ip.protocol,
            "ttl_sent": each.entered.packet.ip.ttl,
            "ttl_arrived": None if left is None else left.packet.ip.ttl,
            "identification": packet.ip.identification,
            "dont_fragment": packet.ip.dont_fragment,
            "total_length": packet.ip.total_length,
            "checksum_ok": packet.header_checksum_ok,
        },
    }


def _explain(each: Passage, row: dict[str, Any], client: End, directions: dict[End, _Direction]) -> None:
    """Add to *row* the TCP header, with relative sequence numbers, and a description of the segment."""
    packet, tcp = each.packet, each.packet.tcp
    if tcp is None:
        return
    ours, theirs = directions[packet.source], directions[packet.destination]
    if "SYN" in tcp.flags and ours.first is None:
        ours.first, ours.expected = tcp.seq, (tcp.seq + 1) % MODULUS
        ours.scale = int.from_bytes(tcp.option(3) or b"", "big")
    row["from"] = "client" if packet.source == client else "server"
    row["tcp"] = {
        "source_port": tcp.source_port,
        "destination_port": tcp.destination_port,
        "seq": tcp.seq,
        "ack": tcp.ack if "ACK" in tcp.flags else None,
        "relative_seq": ours.relative(tcp.seq),
        "relative_ack": theirs.relative(tcp.ack) if "ACK" in tcp.flags else None,
        "flags": sorted(tcp.flags),
        "window": tcp.window,
        "scaled_window": tcp.window if "SYN" in tcp.flags else tcp.window << ours.scale,
        "length": len(packet.payload),
        "options": [describe(kind, data) for kind, data in tcp.options],
        # Check only frames that left the network.  In a frame that enters it, the checksum may be incomplete, because
        # the sender's kernel may leave the computation to its network device.
        "checksum_ok": None if each.left is None else packet.transport_checksum_ok,
    }
    row["what"] = _what(each, tcp, ours, closed=theirs.closed)
    ours.closed = tcp.window == 0


def _what(each: Passage, tcp: Tcp, ours: _Direction, *, closed: bool) -> str:
    """Return a description of a segment: its flags and payload; *closed* is whether the receiver's window is 0."""
    payload, words = each.packet.payload, []
    if "RST" in tcp.flags:
        words.append("RST")
    if "SYN" in tcp.flags:
        words.append("SYN-ACK" if "ACK" in tcp.flags else "SYN")
    if each.left is None:
        words.append("lost on the way")
        ours.lost.add(tcp.seq)
    elif payload and ours.expected is not None and before(tcp.seq, ours.expected):
        words.append("retransmission")
    elif payload and ours.expected is not None and tcp.seq != ours.expected:
        words.append("ahead of a gap")
        ours.ahead[tcp.seq] = payload
    elif payload:
        words.append(ours.arrived(tcp.seq, payload))
    elif closed and tcp.flags == {"ACK"} and ours.expected == (tcp.seq + 1) % MODULUS:
        words.append("zero-window probe")
    if "FIN" in tcp.flags:
        words.append("FIN")
    if tcp.window == 0 and "RST" not in tcp.flags:
        words.append("zero window")
    return " + ".join(words) or "ACK"


def _datagram(each: Passage, client: str) -> dict[str, Any]:
    packet, udp = each.packet, each.packet.udp
    row: dict[str, Any] = {"from": "client" if packet.ip.source == client else "server", "what": "datagram"}
    if udp is not None:
        ports = {"source_port": udp.source_port, "destination_port": udp.destination_port}
        row["udp"] = {**ports, "length": len(packet.payload)}
    if (described := _dns(packet.payload)) is not None:
        row["what"] = described
    return row


def _dns(payload: bytes) -> str | None:
    """Return the rcode and question of a DNS message, or None if it has no valid question."""
    try:
        question = payload[12 : question_end(payload)]
        query = decode_query(payload[:2] + b"\0\0\0\1" + bytes(6) + question)
    except (DnsMessageError, IndexError):
        return None
    kind = f"DNS {rcode_to_text(payload[3] & 0x0F)}" if payload[2] & 0x80 else "DNS query"
    return f"{kind}: {query.qname} {rdtypes.to_text(query.qtype)}"


def _segment(packet: Packet) -> Segment:
    tcp = packet.tcp
    if tcp is None:
        return Segment(0)
    flags = tcp.flags
    ack = tcp.ack if "ACK" in flags else None
    return Segment(tcp.seq, ack, len(packet.payload), "SYN" in flags, "FIN" in flags, "RST" in flags)


def _macs(passages: Sequence[Passage], client: str) -> dict[str, str]:
    """Return the MAC addresses of both ends and of the router on both sides."""
    found: dict[str, str] = {}
    for each in passages:
        sender, receiver = ("client", "server") if each.packet.ip.source == client else ("server", "client")
        found |= {sender: each.entered.source, f"to_{sender}": each.entered.destination}
        if each.left is not None:
            found |= {f"to_{receiver}": each.left.source, receiver: each.left.destination}
    return found


def _ms(at_ns: int, began_ns: int) -> float:
    return round((at_ns - began_ns) / 1e6, 3)
