"""Blocking DNS clients for UDP, TCP, TLS and HTTPS with a common interface, and an observer of their traffic."""

import contextlib
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self

import h2.config
import h2.connection
import h2.events

from scenarios.instruments.connection import TIMEOUT
from stub import TCP, UDP, Stub, strict
from stub.message import interpret, parse, query
from stub.transport import BLOCK
from theory.privacy import Transport
from wireformat import ip

#: Ports of the resolver, by transport.
PORTS: dict[Transport, int] = {"udp": 53, "tcp": 53, "dot": 853, "doh": 443}


class Client(Protocol):
    """A DNS client that sends all queries on one connection until `close` is called."""

    def ask(self, name: str, rdtype: str = "A") -> tuple[str, ...]:
        """Return the records of *name* from the resolver; the client does not cache the answer."""

    def close(self) -> None:
        """Close the connection."""


class StubClient:
    """The lab's stub resolver, without its cache."""

    def __init__(self, transport: Transport, address: str, name: str, trust: Path, *, pads: bool = True) -> None:
        """Create a client of the resolver at *address*; *name* is the name that its certificate must contain."""
        kind = {"udp": UDP, "tcp": TCP}.get(transport) or strict(name, trust, pads=pads)
        self._stub = Stub([(address, PORTS[transport])], TIMEOUT, 1, transport=kind)

    def ask(self, name: str, rdtype: str = "A") -> tuple[str, ...]:
        """Return the records of *name*; raise `StubError` if there are none."""
        self._stub.flush()
        return self._stub.resolve(name, rdtype).rdata

    def close(self) -> None:
        """Close the connection."""
        self._stub.close()


class HttpsClient:
    """DNS over HTTPS with HTTP/2 (RFC 8484), one POST request for each query."""

    def __init__(self, address: str, name: str, trust: Path) -> None:
        """Connect on the first query; *name* is the name that the resolver's certificate must contain."""
        self._address, self._name, self._trust = address, name, trust
        self._sock: ssl.SSLSocket | None = None

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self._trust)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((self._address, PORTS["doh"]), TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock = context.wrap_socket(plain, server_hostname=self._name)
        except BaseException:
            plain.close()
            raise
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()
        return sock

    def ask(self, name: str, rdtype: str = "A") -> tuple[str, ...]:
        """Return the records of *name*.

        Raises:
            StubError: there are no records.
            OSError: the connection failed or ended, or the resolver's certificate is not valid (`ssl.SSLError`).
        """
        if self._sock is None:
            self._sock = self._connect()
        wire = query(0, name, rdtype, BLOCK)
        stream = self._http.get_next_available_stream_id()
        head = {
            ":method": "POST", ":scheme": "https", ":authority": self._name, ":path": "/dns-query",
            "content-type": "application/dns-message", "accept": "application/dns-message",
        }  # fmt: skip
        self._http.send_headers(stream, list(head.items()))
        self._http.send_data(stream, wire, end_stream=True)
        body, ended = b"", False
        while not ended:
            self._sock.sendall(self._http.data_to_send())
            data = self._sock.recv(65_536)
            if not data:
                raise ConnectionError("the server closed the connection")
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    body += event.data
                ended |= isinstance(event, h2.events.StreamEnded)
        return interpret(parse(wire, body), name, rdtype)[0]

    def close(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def client(
    transport: Transport, address: str, name: str, trust: Path, *, pads: bool = True
) -> "contextlib.closing[Client]":
    """Return a client over *transport*; it closes its connection at the end of a ``with`` block."""
    if transport == "doh":
        return contextlib.closing(HttpsClient(address, name, trust))
    return contextlib.closing(StubClient(transport, address, name, trust, pads=pads))


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
        #: Bytes of each TCP stream, by source and destination, where each is an address and a port.
        self.streams = {key: b"".join(found[seq] for seq in sorted(found)) for key, found in segments.items()}

    def reads(self, text: str) -> bool:
        """Return whether *text* occurs in any payload, regardless of upper and lower case."""
        return any(text.lower().encode() in each.lower() for each in (*self.datagrams, *self.streams.values()))

    def records(self, source: tuple[str, int] | None, destination: tuple[str, int] | None) -> dict[object, list[int]]:
        """Return the sizes of the encrypted TLS records from *source* or to *destination*, by connection, in bytes."""
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
