"""A DNS client over UDP, TCP, TLS or HTTPS, and an observer of its traffic."""

from collections.abc import Iterable
from pathlib import Path

from scenarios.instruments.connection import TIMEOUT
from stub import TCP, UDP, Stub, https, strict
from theory.privacy import Transport
from wireformat import ip

#: Ports of the resolver, keyed by transport.
PORTS: dict[Transport, int] = {"udp": 53, "tcp": 53, "dot": 853, "doh": 443}
UNENCRYPTED = {"udp": UDP, "tcp": TCP}


class Client:
    """The lab's stub resolver without its cache; it sends all queries on one connection until `close` is called."""

    def __init__(self, transport: Transport, address: str, name: str, trust: Path, *, pads: bool = True) -> None:
        """Create a client of the resolver at *address*; *name* is the name that its certificate must contain."""
        if transport in UNENCRYPTED:
            kind = UNENCRYPTED[transport]
        else:
            kind = (https if transport == "doh" else strict)(name, trust, pads=pads)
        self._stub = Stub([(address, PORTS[transport])], TIMEOUT, 1, transport=kind)

    def ask(self, name: str, rdtype: str = "A") -> tuple[str, ...]:
        """Return the records of *name*; raise `StubError` if there are none."""
        self._stub.flush()
        return self._stub.resolve(name, rdtype).rdata

    def close(self) -> None:
        """Close the connection."""
        self._stub.close()


class Observed:
    """Payloads of captured packets: unmodified datagrams, and reassembled TCP streams."""

    def __init__(self, packets: Iterable[bytes]) -> None:
        segments: dict[tuple[tuple[str, int], tuple[str, int]], dict[int, bytes]] = {}
        self.datagrams: list[bytes] = []
        for data in packets:
            packet = ip.decode(data)
            if packet.udp is not None:
                self.datagrams.append(packet.payload)
            elif packet.tcp is not None and packet.payload:
                key = packet.source, packet.destination
                segments.setdefault(key, {}).setdefault(packet.tcp.seq, packet.payload)
        #: Bytes of each TCP stream, keyed by source and destination (each a pair of address and port).
        self.streams = {key: b"".join(found[seq] for seq in sorted(found)) for key, found in segments.items()}

    def reads(self, text: str) -> bool:
        """Return whether *text* occurs in any payload, regardless of upper and lower case."""
        return any(text.lower().encode() in each.lower() for each in (*self.datagrams, *self.streams.values()))

    def records(self, source: tuple[str, int] | None, destination: tuple[str, int] | None) -> dict[object, list[int]]:
        """Return the sizes in bytes of encrypted TLS records from *source* or to *destination*, keyed by connection."""
        return {
            key: [size for kind, size in _records(stream) if kind == 23]
            for key, stream in self.streams.items()
            if key[0] == source or key[1] == destination
        }


def _records(stream: bytes) -> Iterable[tuple[int, int]]:
    """Yield each TLS record's content type, and its size including its header (RFC 8446 section 5.1)."""
    at = 0
    while at + 5 <= len(stream):
        size = 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        yield stream[at], size
        at += size
