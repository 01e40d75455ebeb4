"""``firstbyte encryption``: send one text in four ways, and show which of five places can read it.

The places are the packets at `wan`, the edge and the origin after they decrypt TLS (recorded by their taps), the
database file, and the recipient.  A place *reads* the text if the text occurs in the bytes recorded at this place.
"""

import argparse
import base64
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from firstbyte import terminal, where
from hostfiles.layout import TRUST_ANCHOR
from origin.correspondent import CorrespondentError, views
from origin.sealing import SealError
from runtime import InsideLab, LabError, UsageError
from wireformat import ip, pcap

#: Hosts that share the database behind www.example.com.
ORIGINS = ("catalog-1", "catalog-2")
HOST = "www.example.com"
#: Maximum duration of the recordings in seconds; they are stopped when the text has arrived.
SECONDS = 30.0
#: Ways of sending, each with its description.
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
#: Places that must read the text, by way; no other place may read it.
READS = {
    "http": {"network", "edge", "origin", "database", "recipient"},
    "https": {"edge", "origin", "database", "recipient"},
    "note": {"edge", "origin", "recipient"},
    "letter": {"recipient"},
}
#: Ports of the edge on which clients send the text.
EDGE_PORTS = (80, 443)
#: Number of bytes shown per view.
SHOWN = 24


class LeakError(LabError):
    """A place reads a text that it must not read, or does not have the message."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class View:
    """The message of one way, as recorded at one place."""

    place: str
    way: str
    #: The text as sent in this way, with the way's name appended.
    text: str
    #: The message as recorded at this place; empty if it was not found.
    data: bytes
    #: Whether the text occurs in any bytes recorded at this place.
    reads: bool

    @property
    def right(self) -> bool:
        """Whether the place has the message, and reads the text if and only if `READS` lists the place."""
        return bool(self.data) and self.reads == (self.place in READS[self.way])

    @property
    def shown(self) -> str:
        """The text if it is readable, else the last bytes in hexadecimal, because headers come first."""
        return self.text if self.reads else self.data[-SHOWN:].hex(" ")


def encryption(args: argparse.Namespace) -> int:
    """Send a text in four ways, and show which places read it.

    Raises:
        LeakError: a place reads a text that it must not read, or does not have the message.
        UsageError: the text is empty or too long, or contains characters that are not allowed.
        LabError: the lab is not up, or the text did not arrive.
    """
    text = _text(args.text)
    with where.lab() as lab:
        evidence = _collect(lab, text)
    found = list(views_of(evidence))
    if args.json:
        print(json.dumps(_as_json(evidence, found), indent=2))
    else:
        _draw(evidence, found)
    judge(found)
    return 0


def judge(found: list[View]) -> None:
    """Compare the places that read the text with `READS`.

    Raises:
        LeakError: a place reads a text that it must not read, or does not have the message.
    """
    for each in found:
        if not each.right:
            what = "reads it" if each.reads else "does not read it" if each.data else "does not have the message"
            raise LeakError(f"{PLACES[each.place]}: {what}, when sent as {WAYS[each.way]}")


def _text(given: str) -> str:
    """Return the text with a random suffix, so that it differs from every earlier text."""
    if not re.fullmatch(r"[ !#-\[\]-~]{1,200}", given):
        raise UsageError(f'expected 1 to 200 printable ASCII characters without " and \\, got {given[:60]!r}')
    return f"{given} #{secrets.token_hex(3)}"


# --- evidence ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was recorded while the text was sent."""

    #: Report of the mailbox client (`origin.correspondent.views`).
    sent: dict[str, Any]
    #: IPv4 packets at the router.
    packets: tuple[bytes, ...]
    #: Bytes that the edge sent to origins.
    edge: bytes
    #: Request bodies that the origins received, by path.
    bodies: dict[str, bytes]
    #: Content of the database's files.
    database: bytes
    #: The note's ciphertext, as the origin stores it.
    note: bytes


def _collect(lab: where.Way, text: str) -> Evidence:
    edge = lab.addresses["edge"] if isinstance(lab, InsideLab) else lab.topology.host("edge").address
    with ExitStack() as stack:
        stack.enter_context(_recording(lab, "wan", "/admin/pcap", {"filter": {"host": edge, "protocol": "tcp"}}))
        for host in ("edge", *ORIGINS):
            stack.enter_context(_recording(lab, host, "/admin/tap", {}))
        lab.call("edge", "POST", "/admin/pool/purge")  # the tap records only connections opened after it starts
        sent = _send(lab, text)
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
def _recording(lab: where.Way, host: str, path: str, more: dict[str, Any]) -> Iterator[None]:
    lab.call(host, "POST", path, {"seconds": SECONDS, **more})
    try:
        yield
    finally:
        lab.call(host, "DELETE", path)


def _send(lab: where.Way, text: str) -> dict[str, Any]:
    """Run the mailbox client on the host `client`, or on this host inside the lab; return its report."""
    if isinstance(lab, InsideLab):
        try:
            return views(HOST, TRUST_ANCHOR, text)
        except (CorrespondentError, SealError) as error:
            raise LabError(str(error)) from None
    code, out, err = lab.capture("client", ["python", "-m", "origin.correspondent", "views", "--host", HOST, text])
    if code:
        raise LabError(f"client: {err.decode(errors='replace').strip()}")
    found: dict[str, Any] = json.loads(out)
    return found


# --- views ------------------------------------------------------------------------------------------------------------


def views_of(evidence: Evidence) -> Iterator[View]:
    """Yield one view per way and place."""
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


# --- output -----------------------------------------------------------------------------------------------------------


def _draw(evidence: Evidence, found: list[View]) -> None:
    console, table = terminal.console(), terminal.table("who reads it?", *WAYS)
    for place, title in PLACES.items():
        cells = {each.way: "reads it" if each.reads else "-" for each in found if each.place == place}
        table.add_row(title, *(cells[way] for way in WAYS))
    console.print(table)
    for way, title in WAYS.items():
        console.print(f"\n{title}", style="bold")
        for each in found:
            if each.way == way:
                console.print(f"  {PLACES[each.place]:<18} {len(each.data):>5} bytes  {each.shown}", soft_wrap=True)
    console.print(f"\nfingerprint of the recipient's key: {evidence.sent['fingerprint']}")


def _as_json(evidence: Evidence, found: list[View]) -> dict[str, Any]:
    rows = [
        {"place": each.place, "way": each.way, "text": each.text, "reads": each.reads, "hex": each.data.hex()}
        for each in found
    ]
    return {"fingerprint": evidence.sent["fingerprint"], "views": rows}
