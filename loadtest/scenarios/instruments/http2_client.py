"""Blocking HTTP/2 client for concurrent requests on one connection (RFC 9113)."""

import socket
import ssl
import time
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset

from scenarios.instruments.connection import TIMEOUT, Address
from waterfall.tls import TlsSocket


class Http2Connection:
    """One HTTP/2 connection; use it as a context manager."""

    def __init__(self, to: Address, context: ssl.SSLContext) -> None:
        """Connect to *to*; *context* must offer ``h2`` in ALPN.

        Raises:
            OSError: connecting or the handshake failed, or the server does not speak HTTP/2.
        """
        self._to = to
        self.sock = socket.create_connection((to.address, to.port), timeout=TIMEOUT)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tls = TlsSocket(self.sock, context, to.host)
            self._tls.handshake()
            if (got := self._tls.tls.object.selected_alpn_protocol()) != "h2":
                raise ConnectionError(f"{to.host}: expected HTTP/2, the server selected {got}")
            self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            self._http.initiate_connection()
            self._tls.write(self._http.data_to_send())
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection without waiting for the server to close it."""
        self.sock.close()

    def ask(self, paths: list[str]) -> list[float]:
        """Send GET requests at the same time; return how many milliseconds each response took to complete.

        Raises:
            OSError: the connection ended, or the server reset a stream.
        """
        streams = {}
        for path in paths:
            stream = self._http.get_next_available_stream_id()
            head = [(":method", "GET"), (":scheme", "https"), (":authority", self._to.host), (":path", path)]
            self._http.send_headers(stream, head, end_stream=True)
            streams[stream] = 0.0
        began = time.perf_counter()
        self._tls.write(self._http.data_to_send())
        while not all(streams.values()):
            data = self._tls.read()
            if not data:
                raise ConnectionError(f"{self._to.host}: the connection ended before all responses were complete")
            for event in self._http.receive_data(data):
                if isinstance(event, DataReceived):
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamReset):
                    raise ConnectionError(f"{self._to.host}: the server reset stream {event.stream_id}")
                elif isinstance(event, StreamEnded):
                    streams[event.stream_id] = (time.perf_counter() - began) * 1000
            if waiting := self._http.data_to_send():
                self._tls.write(waiting)
        return list(streams.values())
