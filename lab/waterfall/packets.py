"""One connection as it passed the network: every segment at both ends, the states that it put them in, round trips.

A frame is seen when it enters the network and when it leaves it; the two are one passage, with the time in which the
wide-area network held it between.  Sans-IO: frames in, a dictionary for ``trace --json`` out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dnslib

from wan.pcapng import Frame, Recording
from waterfall.headers import HeaderError, Packet, Tcp, decode, describe
from waterfall.records import LineReader, RecordReader, counted
from waterfall.tcp_state import CLOSED, LISTEN, MODULUS, Endpoint, Segment, before

End = tuple[str, int]
#: Nanoseconds by which the kernel's word on a socket and the frame that shows it may be apart: one wakes up the other.
SLACK_NS = 3_000_000
DNS_PORT = 53
#: Octets of payload that every full segment has (RFC 9293 section 3.7.1).
LEAST_SEGMENT = 536


@dataclass(slots=True)
class Passage:
    """One packet on its way through the network."""

    sent_ns: int
    entered: Packet
    #: None: it never came out.
    arrived_ns: int | None = None
    left: Packet | None = None

    @property
    def packet(self) -> Packet:
        """The packet as it arrived, or else as it was sent."""
        return self.left or self.entered


@dataclass(slots=True)
class _Entry:
    """A frame that entered; a sender's kernel may leave it to its device to cut it into segments (GSO)."""

    time_ns: int
    packet: Packet
    #: What of it came out already: octets of its payload, and whether any frame did.
    out: int = 0
    used: bool = False

    def accepts(self, packet: Packet) -> bool:
        """Return whether *packet*, which left, is this one or a part of it."""
        mine, other = self.packet.tcp, packet.tcp
        if mine is None or other is None:
            same = (self.packet.ip.identification, self.packet.payload) == (packet.ip.identification, packet.payload)
            return same and not self.used
        if (mine.ack, mine.flags & {"SYN", "RST"}) != (other.ack, other.flags & {"SYN", "RST"}):
            return False
        offset = (other.seq - mine.seq) % MODULUS
        # A retransmission has the same numbers and another identification; segments of one frame count it up.
        younger = (packet.ip.identification - self.packet.ip.identification) % 65_536
        if younger > offset // LEAST_SEGMENT:
            return False
        if not self.packet.payload:
            return not self.used and offset == 0 and not packet.payload and mine.flags == other.flags
        return offset >= self.out and 0 < len(packet.payload) <= len(self.packet.payload) - offset


@dataclass(slots=True)
class _Direction:
    """One direction of the connection, followed octet by octet."""

    reader: RecordReader | LineReader
    first: int | None = None
    expected: int | None = None
    #: Window scale (RFC 7323) that this end announced.
    scale: int = 0

    def relative(self, number: int) -> int:
        return (number - self.first) % MODULUS if self.first is not None else number


def tcp_passages(frames: Iterable[Frame], client: End, server: End) -> list[Passage]:
    """Return every segment between two ends, in the order in which they entered the network."""
    return _passages(_between(frames, client, server))


def dns_passages(frames: Iterable[Frame], client: str) -> list[Passage]:
    """Return every DNS datagram of *client*."""
    wanted = [
        (frame, packet)
        for frame, packet in _decoded(frames)
        if packet.udp is not None
        and DNS_PORT in {packet.udp.source_port, packet.udp.destination_port}
        and client in {packet.ip.source, packet.ip.destination}
    ]
    return _passages(wanted)


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
    """Return ``packets`` of one trace.

    Args:
        recording: what passed the network.
        client: address and port.
        server: address and port.
        began_ns: when the trace began, nanoseconds since 1970; times are milliseconds since then.
        first_byte_ms: when the first byte of the response had come.
        kernel_states: what the kernel said of the client's socket, and when: not before the first moment, nor after the second.
        tls: whether the connection speaks TLS.
    """
    passages = tcp_passages(recording.frames, client, server)
    end_ns = began_ns + round(1e6 * max(first_byte_ms, 0))
    names = [
        each for each in dns_passages(recording.frames, client[0]) if began_ns <= each.sent_ns < (
            passages[0].sent_ns if passages else end_ns
        )
    ]  # fmt: skip
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
        "kernel": _against_kernel(states, kernel_states, began_ns),
    }


def round_trips(passages: Sequence[Passage], client: End, until_ns: int) -> int:
    """Count how often, until *until_ns*, the client sent something that was answered by more than an ACK."""
    events = []
    for each in passages:
        tcp = each.packet.tcp
        if tcp is None or not (each.packet.payload or "SYN" in tcp.flags):
            continue
        if _source(each.packet) == client:
            events.append((each.sent_ns, True))
        elif each.arrived_ns is not None:
            events.append((each.arrived_ns, False))
    count, waiting = 0, False
    for at, sent in sorted(events):
        if at > until_ns:
            break
        if sent:
            waiting = True
        elif waiting:
            count, waiting = count + 1, False
    return count


# --- frames to passages ---------------------------------------------------------------------------------------------


def _decoded(frames: Iterable[Frame]) -> list[tuple[Frame, Packet]]:
    found = []
    for frame in frames:
        try:
            found.append((frame, decode(frame.data)))
        except HeaderError:  # not ours: another protocol
            continue
    return found


def _between(frames: Iterable[Frame], client: End, server: End) -> list[tuple[Frame, Packet]]:
    ends = {(client, server), (server, client)}
    return [
        (frame, packet)
        for frame, packet in _decoded(frames)
        if packet.tcp is not None and (_source(packet), _destination(packet)) in ends
    ]


def _passages(frames: Sequence[tuple[Frame, Packet]]) -> list[Passage]:
    """Pair what left the network with what had entered it."""
    waiting: dict[tuple[str, str], list[_Entry]] = {}
    found: list[Passage] = []
    for frame, packet in sorted(frames, key=lambda each: (each[0].time_ns, each[0].outbound)):
        entries = waiting.setdefault((packet.ip.source, packet.ip.destination), [])
        if not frame.outbound:
            entries.append(_Entry(frame.time_ns, packet))
            continue
        entry = next((each for each in entries if each.accepts(packet)), None)
        if entry is None:  # it entered before the capture began
            continue
        entry.used = True
        if packet.tcp is not None and entry.packet.tcp is not None and packet.payload:
            entry.out = (packet.tcp.seq - entry.packet.tcp.seq) % MODULUS + len(packet.payload)
        found.append(Passage(entry.time_ns, entry.packet, frame.time_ns, packet))
    for entries in waiting.values():
        found += [Passage(each.time_ns, each.packet) for each in entries if not each.used]
    return sorted(found, key=lambda each: (each.sent_ns, each.arrived_ns or 0))


# --- passages to words ----------------------------------------------------------------------------------------------


def _states(passages: Sequence[Passage], client: End) -> list[tuple[int, str, str]]:
    """Return (nanoseconds, ``client`` or ``server``, state) of every change, in order."""
    ends = {"client": Endpoint(CLOSED), "server": Endpoint(LISTEN)}
    events = []
    for order, each in enumerate(passages):
        sender, receiver = ("client", "server") if _source(each.packet) == client else ("server", "client")
        events.append((each.sent_ns, order, sender, True, each))
        if each.arrived_ns is not None:
            events.append((each.arrived_ns, order, receiver, False, each))
    changes = []
    for at, _, host, sent, each in sorted(events, key=lambda event: event[:2]):
        end, known = ends[host], len(ends[host].history)
        (end.sent if sent else end.received)(_segment(each.packet))
        changes += [(at, host, state) for state in end.history[known:]]
    return changes


def _against_kernel(
    states: Sequence[tuple[int, str, str]], kernel: Sequence[tuple[int, int, str]], began_ns: int
) -> list[dict[str, Any]]:
    """Hold the client's states, as segments show them, against what its kernel said."""
    own = [(0, CLOSED), *((at, state) for at, host, state in states if host == "client")]
    rows = []
    for began, ended, said in kernel:
        current = [state for since, state in own if since <= began - SLACK_NS][-1:]
        near = [state for since, state in own if began - SLACK_NS < since <= ended + SLACK_NS]
        told = [state for since, state in own if since <= ended][-1]
        rows.append({"ms": _ms(ended, began_ns), "kernel": said, "segments": told, "agrees": said in [*current, *near]})
    return rows


def _row(each: Passage, began_ns: int) -> dict[str, Any]:
    packet = each.packet
    return {
        "sent_ms": _ms(each.sent_ns, began_ns),
        "arrived_ms": None if each.arrived_ns is None else _ms(each.arrived_ns, began_ns),
        "ethernet": {
            "sent": {"source": each.entered.ethernet.source, "destination": each.entered.ethernet.destination},
            "arrived": None
            if each.left is None
            else {"source": each.left.ethernet.source, "destination": each.left.ethernet.destination},
            "type": packet.ethernet.ethertype,
        },
        "ip": {
            "source": packet.ip.source,
            "destination": packet.ip.destination,
            "protocol": packet.ip.protocol,
            "ttl_sent": each.entered.ip.ttl,
            "ttl_arrived": None if each.left is None else each.left.ip.ttl,
            "identification": packet.ip.identification,
            "dont_fragment": packet.ip.dont_fragment,
            "total_length": packet.ip.total_length,
            "checksum_ok": packet.ip.checksum_ok,
        },
    }


def _explain(each: Passage, row: dict[str, Any], client: End, directions: dict[End, _Direction]) -> None:
    """Add the TCP header, in numbers relative to the connection's first, and what the segment is."""
    packet, tcp = each.packet, each.packet.tcp
    if tcp is None:
        return
    source, target = _source(packet), _destination(packet)
    ours, theirs = directions[source], directions[target]
    if "SYN" in tcp.flags and ours.first is None:
        ours.first, ours.expected = tcp.seq, (tcp.seq + 1) % MODULUS
        ours.scale = int.from_bytes(tcp.option(3) or b"", "big")
    row["from"] = "client" if source == client else "server"
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
        # Only what left the network has whole checksums: a sender may leave them to its device.
        "checksum_ok": None if each.left is None else tcp.checksum_ok,
    }
    row["what"] = _what(each, tcp, ours)


def _what(each: Passage, tcp: Tcp, ours: _Direction) -> str:
    """Name a segment: its flags, and what it carries."""
    payload, words = each.packet.payload, []
    if "RST" in tcp.flags:
        words.append("RST")
    if "SYN" in tcp.flags:
        words.append("SYN-ACK" if "ACK" in tcp.flags else "SYN")
    if payload:
        if each.left is None:
            words.append("lost on the way")
        elif ours.expected is not None and tcp.seq != ours.expected:
            words.append("retransmission" if before(tcp.seq, ours.expected) else "ahead of a gap")
        else:
            words.append(counted(ours.reader.feed(payload)))
            ours.expected = (tcp.seq + len(payload)) % MODULUS
    elif each.left is None:
        words.append("lost on the way")
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
    try:
        message = dnslib.DNSRecord.parse(packet.payload)
        kind = f"DNS {dnslib.RCODE.get(message.header.rcode)}" if message.header.qr else "DNS query"
        row["what"] = f"{kind}: {message.q.qname} {dnslib.QTYPE.get(message.q.qtype)}"
    except Exception:  # noqa: S110 - dnslib raises what it likes; the datagram is shown as one
        pass
    return row


def _segment(packet: Packet) -> Segment:
    tcp = packet.tcp
    if tcp is None:
        return Segment(0)
    flags = tcp.flags
    ack = tcp.ack if "ACK" in flags else None
    return Segment(tcp.seq, ack, len(packet.payload), "SYN" in flags, "FIN" in flags, "RST" in flags)


def _macs(passages: Sequence[Passage], client: str) -> dict[str, str]:
    """Return the addresses of both ends, and of the router on either side."""
    found: dict[str, str] = {}
    for each in passages:
        entered, left = each.entered.ethernet, each.left.ethernet if each.left is not None else None
        if each.packet.ip.source == client:
            found |= {"client": entered.source, "to_client": entered.destination}
            found |= {"to_server": left.source, "server": left.destination} if left is not None else {}
        else:
            found |= {"server": entered.source, "to_server": entered.destination}
            found |= {"to_client": left.source, "client": left.destination} if left is not None else {}
    return found


def _source(packet: Packet) -> End:
    port = packet.transport.source_port if packet.transport is not None else 0
    return packet.ip.source, port


def _destination(packet: Packet) -> End:
    port = packet.transport.destination_port if packet.transport is not None else 0
    return packet.ip.destination, port


def _ms(at_ns: int, began_ns: int) -> float:
    return round((at_ns - began_ns) / 1e6, 3)
