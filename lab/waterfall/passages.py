"""Pairing of frames captured at the router: a passage is a packet that enters the network and, unless lost, leaves it.

The time between the two frames is the delay that the wide-area network added.  Sans-IO.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from waterfall.tcp_state import MODULUS
from wireformat.ip import EthernetFrame, HeaderError, Packet, decode_frame
from wireformat.pcapng import Frame

End = tuple[str, int]
DNS_PORT = 53
#: Minimum payload of a full-size segment in bytes (RFC 9293 section 3.7.1).
MIN_SEGMENT = 536


@dataclass(slots=True)
class Passage:
    """The passage of one packet through the network; times are in nanoseconds since the epoch."""

    sent_ns: int
    entered: EthernetFrame
    #: Time at which the packet left the network, or None if it was lost.
    arrived_ns: int | None = None
    left: EthernetFrame | None = None

    @property
    def packet(self) -> Packet:
        """The packet as it left the network, or as it entered if it was lost."""
        return (self.left or self.entered).packet


@dataclass(slots=True)
class _Entry:
    """A frame that entered the network.  With GSO, the frame is split into several segments before it leaves."""

    time_ns: int
    frame: EthernetFrame
    #: Number of payload bytes that have left the network so far.
    out: int = 0
    #: Whether a frame that left the network has been matched with this frame.
    used: bool = False

    def accepts(self, packet: Packet) -> bool:
        """Return whether *packet*, which left the network, is this frame's packet or a segment of it."""
        own = self.frame.packet
        mine, other = own.tcp, packet.tcp
        if mine is None or other is None:
            same = (own.ip.identification, own.payload) == (packet.ip.identification, packet.payload)
            return same and not self.used
        if (mine.ack, mine.flags & {"SYN", "RST"}) != (other.ack, other.flags & {"SYN", "RST"}):
            return False
        offset = (other.seq - mine.seq) % MODULUS
        # A retransmission has the same sequence number but another IP identification, whereas the segments of one
        # frame have consecutive identifications.
        younger = (packet.ip.identification - own.ip.identification) % 65_536
        if younger > offset // MIN_SEGMENT:
            return False
        if not own.payload:
            return not self.used and offset == 0 and not packet.payload and mine.flags == other.flags
        return offset >= self.out and 0 < len(packet.payload) <= len(own.payload) - offset


def tcp_passages(frames: Iterable[Frame], client: End, server: End) -> list[Passage]:
    """Return the passages of all segments between *client* and *server*, in the order of entering the network."""
    ends = {(client, server), (server, client)}
    return _passages(
        (frame, decoded)
        for frame, decoded in _decoded(frames)
        if decoded.packet.tcp is not None and (decoded.packet.source, decoded.packet.destination) in ends
    )


def udp_passages(frames: Iterable[Frame], client: End, server: End) -> list[Passage]:
    """Return the passages of all datagrams between *client* and *server*, in the order in which they were sent."""
    ends = {(client, server), (server, client)}
    return _passages(
        (frame, decoded)
        for frame, decoded in _decoded(frames)
        if decoded.packet.udp is not None and (decoded.packet.source, decoded.packet.destination) in ends
    )


def dns_passages(frames: Iterable[Frame], client: str) -> list[Passage]:
    """Return the passages of all DNS datagrams from or to *client*."""
    wanted = []
    for frame, decoded in _decoded(frames):
        (source, source_port), (destination, destination_port) = decoded.packet.source, decoded.packet.destination
        ours = client in {source, destination} and DNS_PORT in {source_port, destination_port}
        if ours and decoded.packet.udp is not None:
            wanted.append((frame, decoded))
    return _passages(wanted)


def round_trips(passages: Sequence[Passage], client: End, until_ns: int) -> int:
    """Count the round trips up to *until_ns*: the client sent data or a SYN and then received data or a SYN."""
    events = []
    for each in passages:
        tcp = each.packet.tcp
        if tcp is None or not (each.packet.payload or "SYN" in tcp.flags):
            continue
        if each.packet.source == client:
            events.append((each.sent_ns, True))
        elif each.arrived_ns is not None:
            events.append((each.arrived_ns, False))
    count, waiting = 0, False
    for at, sent in sorted(events):
        if at > until_ns:
            break
        count += waiting and not sent
        waiting = sent
    return count


def _decoded(frames: Iterable[Frame]) -> list[tuple[Frame, EthernetFrame]]:
    found = []
    for frame in frames:
        try:
            found.append((frame, decode_frame(frame.data)))
        except HeaderError:  # a frame of another protocol, such as ARP
            continue
    return found


def _passages(frames: Iterable[tuple[Frame, EthernetFrame]]) -> list[Passage]:
    waiting: dict[tuple[str, str], list[_Entry]] = {}
    found: list[Passage] = []
    for frame, decoded in sorted(frames, key=lambda each: (each[0].time_ns, each[0].outbound)):
        packet = decoded.packet
        entries = waiting.setdefault((packet.ip.source, packet.ip.destination), [])
        if not frame.outbound:
            entries.append(_Entry(frame.time_ns, decoded))
            continue
        entry = next((each for each in entries if each.accepts(packet)), None)
        if entry is None:  # the packet entered before the capture started
            continue
        entry.used = True
        entered = entry.frame.packet
        if packet.tcp is not None and entered.tcp is not None and packet.payload:
            entry.out = (packet.tcp.seq - entered.tcp.seq) % MODULUS + len(packet.payload)
        found.append(Passage(entry.time_ns, entry.frame, frame.time_ns, decoded))
    for entries in waiting.values():
        found += [Passage(each.time_ns, each.frame) for each in entries if not each.used]
    return sorted(found, key=lambda each: (each.sent_ns, each.arrived_ns or 0))
