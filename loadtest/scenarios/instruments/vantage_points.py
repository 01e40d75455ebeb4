"""Records where a text can be read: at the router, at the edge, at the origin, in the database, at the recipient.

The taps of the edge and of the origins record data after TLS is decrypted.  A place *reads* the text if the text occurs
in the bytes captured at this observation point.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from experiments import Admin
from wireformat import ip, pcap

#: Hosts that share the database behind www.example.com.
ORIGINS = ("catalog-1", "catalog-2")
#: Host to which the text is sent.
HOST = "www.example.com"
#: Maximum duration of the recordings in seconds; normally they stop as soon as the text has arrived.
SECONDS = 30.0
#: Ways of sending the text, each with its description.
WAYS = {
    "http": "an item over HTTP: not encrypted",
    "https": "an item over HTTPS: encrypted in transit",
    "note": "a note over HTTPS: encrypted in transit and at rest",
    "letter": "a letter over HTTPS: encrypted end to end",
}
PLACES = {
    "network": "packets at wan",
    "edge": "edge, after TLS",
    "origin": "origin, after TLS",
    "database": "database file",
    "recipient": "recipient",
}
#: Places at which the text must be readable, keyed by way of sending; at all other places it must be unreadable.
READS = {
    "http": {"network", "edge", "origin", "database", "recipient"},
    "https": {"edge", "origin", "database", "recipient"},
    "note": {"edge", "origin", "recipient"},
    "letter": {"recipient"},
}
#: Ports of the edge on which clients send the text.
EDGE_PORTS = (80, 443)
#: Number of bytes of a message that a view shows.
SHOWN = 24


@dataclass(frozen=True, slots=True)
class View:
    """The message sent in one way, as captured at one place."""

    place: str
    way: str
    #: The text that was sent, which ends with the name of the way of sending.
    text: str
    #: The message as captured at this place; empty if it was not found.
    data: bytes
    #: Whether the text occurs in any bytes captured at this place.
    reads: bool

    @property
    def right(self) -> bool:
        """Whether the message was found at this place, and the text was readable exactly if `READS` lists the place."""
        return bool(self.data) and self.reads == (self.place in READS[self.way])

    @property
    def shown(self) -> str:
        """The text if it is readable, else the last bytes of the message in hexadecimal, because headers come first."""
        return self.text if self.reads else self.data[-SHOWN:].hex(" ")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All recordings made while the text was sent."""

    #: Report of the mailbox client (`origin.correspondent.views`).
    sent: dict[str, Any]
    #: IPv4 packets captured at the router.
    packets: tuple[bytes, ...]
    #: Bytes that the edge sent to origins.
    edge: bytes
    #: Request bodies that the origins received, keyed by path.
    bodies: dict[str, bytes]
    #: Content of the database's files.
    database: bytes
    #: Ciphertext of the note, as stored by the origin.
    note: bytes


def collect(lab: Admin, edge: str, send: Callable[[], dict[str, Any]]) -> Evidence:
    """Record at every place while *send* sends the text; return the recordings.

    Args:
        lab: client for the hosts' admin ports.
        edge: IPv4 address of the edge.
        send: sends the text in all ways and returns the mailbox client's report.
    """
    with ExitStack() as stack:
        stack.enter_context(_recording(lab, "wan", "/admin/pcap", {"filter": {"host": edge, "protocol": "tcp"}}))
        for host in ("edge", *ORIGINS):
            stack.enter_context(_recording(lab, host, "/admin/tap", {}))
        lab.call("edge", "POST", "/admin/pool/purge")  # the tap records only connections opened after it starts
        sent = send()
    path = next(each["path"] for each in sent["ways"] if each["way"] == "note")
    taken = [record for host in ORIGINS for record in lab.call(host, "GET", "/admin/tap")["records"]]
    return Evidence(
        sent,
        tuple(pcap.packets(base64.b64decode(lab.call("wan", "GET", "/admin/pcap")["pcap"]))),
        b"".join(bytes.fromhex(each["hex"]) for each in lab.call("edge", "GET", "/admin/tap")["records"]),
        {each["where"].partition(" ")[2]: bytes.fromhex(each["hex"]) for each in taken},
        base64.b64decode(lab.call(ORIGINS[0], "GET", "/admin/database")["base64"]),
        bytes.fromhex(lab.call(ORIGINS[0], "GET", f"/admin{path}")["sealed"]),
    )


@contextmanager
def _recording(lab: Admin, host: str, path: str, more: dict[str, Any]) -> Iterator[None]:
    lab.call(host, "POST", path, {"seconds": SECONDS, **more})
    try:
        yield
    finally:
        lab.call(host, "DELETE", path)


def views_of(evidence: Evidence) -> Iterator[View]:
    """Yield a view for each combination of way of sending and place."""
    streams = _streams(evidence.packets)
    everywhere = {
        "network": b"\n".join(streams.values()),
        "edge": evidence.edge,
        "origin": b"\n".join(evidence.bodies.values()),
        "database": evidence.database,
    }
    for way in evidence.sent["ways"]:
        name, text, sent, read = way["way"], way["text"], bytes.fromhex(way["sent"]), bytes.fromhex(way["reads"])
        stored = {"note": evidence.note, "letter": sent}.get(name, text.encode())
        found = {
            "network": b"".join(data for (port, outbound), data in streams.items() if port == way["port"] and outbound),
            "edge": sent if sent in evidence.edge else b"",
            "origin": evidence.bodies.get(way["path"], b""),
            "database": stored if stored in evidence.database else b"",
            "recipient": read,
        }
        for place, data in found.items():
            yield View(place, name, text, data, text.encode() in everywhere.get(place, read))


def _streams(packets: tuple[bytes, ...]) -> dict[tuple[int, bool], bytes]:
    """Return the reassembled TCP streams by client port and direction (True: sent by the client)."""
    segments: dict[tuple[int, bool], dict[int, bytes]] = {}
    for data in packets:
        packet = ip.decode(data)
        if packet.tcp is None or not packet.payload:
            continue
        outbound = packet.tcp.destination_port in EDGE_PORTS
        port = packet.tcp.source_port if outbound else packet.tcp.destination_port
        segments.setdefault((port, outbound), {}).setdefault(packet.tcp.seq, packet.payload)
    return {key: b"".join(found[seq] for seq in sorted(found)) for key, found in segments.items()}
