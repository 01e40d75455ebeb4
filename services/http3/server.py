"""HTTP/3 connections, one protocol object each, and the session tickets with which clients resume a session."""

import json
import re
from collections import OrderedDict

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, ProtocolNegotiated, QuicEvent
from aioquic.tls import SessionTicket
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from telemetry.metrics import Metrics

#: Maximum size of a response to /bytes/N, in bytes.
MAX_BYTES = 16 << 20
#: Time in seconds after which an idle connection is closed: the same as at the edge.
IDLE = 75.0
#: Maximum number of stored tickets; beyond it, the oldest ticket is discarded.
MAX_TICKETS = 1000


class Tickets:
    """Session tickets, keyed by name, each of which is accepted only once (RFC 8446 section 8.1).

    Early data in a replayed first flight is therefore rejected.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, SessionTicket] = OrderedDict()

    def add(self, ticket: SessionTicket) -> None:
        """Store a newly issued ticket."""
        self._kept[ticket.ticket] = ticket
        while len(self._kept) > MAX_TICKETS:
            self._kept.popitem(last=False)

    def take(self, name: bytes) -> SessionTicket | None:
        """Remove and return the ticket *name*; return None if the ticket is unknown or has already been used."""
        return self._kept.pop(name, None)


class Counts:
    """Metrics of the server."""

    def __init__(self, metrics: Metrics) -> None:
        self.connections = metrics.counter("firstbyte_http3_connections_total", "Handshakes completed", "resumed")
        self.requests = metrics.counter("firstbyte_http3_requests_total", "Requests answered", "early", "status")


def configuration(pem: bytes) -> QuicConfiguration:
    """Return the QUIC settings of the server; *pem* contains the private key and the certificate chain."""
    made = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, idle_timeout=IDLE)
    made.certificate, *made.certificate_chain = x509.load_pem_x509_certificates(pem)
    made.private_key = load_pem_private_key(pem, None)
    return made


class Connection(QuicConnectionProtocol):
    """Answers the requests of one client, which may change its network path during the connection."""

    def __init__(self, quic: QuicConnection, counts: Counts) -> None:
        super().__init__(quic)
        self._counts = counts
        self._http: H3Connection | None = None
        self._early = True
        self._peer: NetworkAddress = ("", 0)

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Remember the client's current address."""
        self._peer = addr
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Answer the requests that are completed by a QUIC event."""
        match event:
            case ProtocolNegotiated():
                self._http = H3Connection(self._quic)
            case HandshakeCompleted(session_resumed=resumed):
                self._early = False
                self._counts.connections.inc(resumed="yes" if resumed else "no")
            case ConnectionTerminated():
                return
        if self._http is not None:
            for each in self._http.handle_event(event):
                self._answer(self._http, each)

    def _answer(self, http: H3Connection, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived):
            return
        fields = dict(event.headers)
        status, body = self._response(fields.get(b":method", b""), fields.get(b":path", b"").decode("latin-1"))
        self._counts.requests.inc(early="yes" if self._early else "no", status=str(status))
        kind = b"application/json" if body.startswith(b"{") else b"application/octet-stream"
        head = [
            (b":status", str(status).encode()),
            (b"content-length", str(len(body)).encode()),
            (b"content-type", kind),
        ]
        http.send_headers(event.stream_id, head, end_stream=fields.get(b":method") == b"HEAD")
        if fields.get(b":method") != b"HEAD":
            http.send_data(event.stream_id, body, end_stream=True)
        # A lost packet delays every stream whose data it carries, so send each response in separate packets (RFC 9000
        # section 13).
        self.transmit()

    def _response(self, method: bytes, path: str) -> tuple[int, bytes]:
        if method not in {b"GET", b"HEAD"}:
            return 405, b"expected GET or HEAD\n"
        if path == "/whoami":
            address = f"{self._peer[0]}:{self._peer[1]}"
            return 200, json.dumps({"protocol": "h3", "peer": address, "early_data": self._early}).encode()
        if (match := re.fullmatch(r"/bytes/(\d{1,9})", path)) and int(match[1]) <= MAX_BYTES:
            return 200, bytes(int(match[1]))
        return 404, b"expected /whoami or /bytes/N\n"
