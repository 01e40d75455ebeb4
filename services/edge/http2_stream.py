"""One request over HTTP/2 and its response: body, flow control and buffering (RFC 9113 sections 5 and 8)."""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hpack import NeverIndexedHeaderTuple

from edge.body_rate import BodyRate
from edge.errors import EdgeError
from edge.glimpse import Glimpse
from edge.heads import RequestHead, ResponseHead
from edge.interfaces import Service, Work
from edge.upstream import HIGH_WATER

#: Response fields that are connection-specific in HTTP/1.1 and forbidden in HTTP/2 (RFC 9113 section 8.2.2).
_HTTP_1_ONLY = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection"})
#: Response fields whose values never repeat; in the HPACK table, they would only evict other fields.
_NOT_INDEXED = frozenset({b"server-timing"})


class Connection(Protocol):
    """Interface that a connection (`edge.http2.Http2Client`) offers to its streams."""

    service: Service
    h2: H2Connection
    scheme: str
    listener: str
    address: str
    suffix: bytes
    #: Serial number of the client's certificate; 0 without a certificate.
    certificate: int
    #: Header fields that are added to every response.
    more: bytes
    pooled: bool
    distrusted: bool
    #: Whether the transport's write buffer is full.
    paused: bool
    #: HEADERS and DATA frames sent in the current window.
    frames_sent: int

    def acknowledge(self, number: int, flow: int) -> None:
        """Send WINDOW_UPDATE for *flow* bytes on stream *number*."""

    def send(self, action: Callable[[H2Connection], None]) -> None:
        """Generate frames with *action* and write them."""

    def flush(self) -> None:
        """Write the frames that h2 has generated."""

    def reset(self, stream: Any, code: ErrorCodes) -> None:
        """Reset *stream*."""

    def closed(self, stream: Any) -> None:
        """Remove *stream*, whose response is complete."""


class Stream:
    """One HTTP/2 request and its response; implements `edge.interfaces.Responder`."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self.number = connection, number
        # Attributes that `Downstream` and `Responder` require; they are the same for all streams of a connection.
        self.suffix, self.pooled, self.distrusted = connection.suffix, connection.pooled, connection.distrusted
        self.scheme, self.listener, self.address = connection.scheme, connection.listener, connection.address
        self.certificate = connection.certificate
        self.work: Work | None = None
        self.asked: RequestHead | Glimpse | None = None
        self.paused = False
        #: Whether the request body has been received completely.
        self.received = False
        #: Time at which response data was last sent, on the monotonic clock.
        self.moved = self.began = time.monotonic()
        self._rate = BodyRate(connection.service.timeouts, self.moved)
        self._reading = True
        #: Received bytes for which WINDOW_UPDATE has not been sent yet, because the origin is slower than the client.
        self._unacknowledged = 0
        self._pending = bytearray()
        self._ends = False
        self._open = True

    # --- the request --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, flow: int) -> None:
        """Process part of the request body; *flow* is its size for flow control: bytes including padding."""
        if self._reading:
            self._connection.acknowledge(self.number, flow)
        else:
            self._unacknowledged += flow
        if data:
            self._rate.received(len(data), time.monotonic())
            if self.work is not None:
                self.work.receive_body(data)

    def body_stalls(self, now: float) -> str:
        """Return why the request body is too slow, or an empty string if its rate is acceptable."""
        return self._rate.stalls(now, reading=self._reading)

    def receive_end(self) -> None:
        """Process the end of the request body."""
        self.received = True
        if self.work is not None:
            self.work.receive_end()

    def pause_reading(self) -> None:
        """Stop sending WINDOW_UPDATE, so that the client must stop when the stream's window is used up."""
        self._reading = False

    def resume_reading(self) -> None:
        """Send the deferred WINDOW_UPDATE."""
        self._reading = True
        self._rate.resumed(time.monotonic())
        flow, self._unacknowledged = self._unacknowledged, 0
        if flow:
            self._connection.acknowledge(self.number, flow)

    # --- the response -------------------------------------------------------------------------------------------------

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head and the first *payload* of the body; *whole* means that the response is complete."""
        lines = head.forward.partition(b"\r\n")[2] + fields + self._connection.more
        if head.framing.length is not None:
            lines += b"content-length: %d\r\n" % head.framing.length
        self._ends = whole
        self._send_head(head.status, lines, end=whole and (bodiless or not payload))
        if payload and not bodiless:
            self.body(payload)

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response (1xx)."""
        self._send_head(head.status, head.forward.partition(b"\r\n")[2], end=False)

    def body(self, payload: bytes) -> None:
        """Send part of the response body, or buffer it while the client's flow-control window is full."""
        self._pending += payload
        self.flush()

    def unsent(self) -> int:
        """Return the number of buffered response bytes that have not been sent yet."""
        return len(self._pending)

    def finished(self, *, cut: bool) -> None:
        """End the response; if it was *cut* short, reset the stream."""
        work, self.work = self.work, None
        if work is not None:
            self._connection.service.done(self, work, "truncated" if cut else work.status)
        self._ends = True
        if cut:
            self._connection.reset(self, ErrorCodes.INTERNAL_ERROR)
        else:
            self.flush()

    def failed(self, error: EdgeError) -> None:
        """Send an error response."""
        work, self.work = self.work, None
        self.respond(error.status, error.body(), b"application/json", head_only=work is not None and work.head_only)
        self._connection.service.done(self, work, error.status, error.reason)

    def stop(self, error: EdgeError) -> None:
        """Cancel the request; send an error response, or reset the stream if a response has already begun."""
        work = self.work
        if work is not None:
            work.abandon()
        if work is not None and work.answered:
            self.finished(cut=True)
        else:
            self.failed(error)

    def respond(self, status: int, body: bytes, kind: bytes, *, more: bytes = b"", head_only: bool = False) -> None:
        """Send a response that the edge itself generates."""
        if status == 503:
            more += b"retry-after: 1\r\n"
        more += self._connection.more + b"date: %b\r\n" % formatdate(usegmt=True).encode()
        lines = b"content-type: %b\r\ncontent-length: %d\r\n%b" % (kind, len(body), more)
        ends = head_only or not body
        self._ends = True
        self._send_head(status, lines, end=ends)
        if not ends:
            self.body(body)

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Raise an error: this must not be called, since HTTP/2 has no status 101 and Upgrade is not forwarded."""
        raise AssertionError((head.status, len(data)))

    def _send_head(self, status: int, lines: bytes, *, end: bool) -> None:
        fields = [(b":status", b"%d" % status)]
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            name = name.lower()
            if name not in _HTTP_1_ONLY:
                fields.append(NeverIndexedHeaderTuple(name, value) if name in _NOT_INDEXED else (name, value))
        if self._open:
            self._connection.send(lambda h2: h2.send_headers(self.number, fields, end_stream=end))
            self._connection.frames_sent += 1
            if end:
                self._sent_all()

    def flush(self) -> None:
        """Send buffered data up to the flow-control windows of the stream and the connection."""
        if not self._open:
            return
        try:
            sent = self._send_pending()
        except H2Error:  # the client has closed the stream or the connection
            self._connection.reset(self, ErrorCodes.STREAM_CLOSED)
            return
        if sent:
            self.moved = time.monotonic()
            self._connection.flush()
        self._tell()

    def _send_pending(self) -> bool:
        """Send as much buffered data as the windows allow; return whether anything was sent."""
        h2, sent = self._connection.h2, False
        while self._pending and not self._connection.paused:
            room = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size, len(self._pending))
            if room <= 0:
                break
            piece = bytes(self._pending[:room])
            del self._pending[:room]
            sent, last = True, self._ends and not self._pending
            h2.send_data(self.number, piece, end_stream=last)
            self._connection.frames_sent += 1
            if last:
                self._sent_all()
        if self._ends and not self._pending and self._open and self.work is None:
            h2.send_data(self.number, b"", end_stream=True)
            self._sent_all()
            sent = True
        return sent

    def _sent_all(self) -> None:
        self._open = False
        self._connection.closed(self)

    def _tell(self) -> None:
        """Pause the origin while too much data is buffered, and resume it once the buffer is empty."""
        full = len(self._pending) > HIGH_WATER if not self.paused else bool(self._pending)
        if full is not self.paused:
            self.paused = full
            if self.work is not None:
                self.work.client_writable(writable=not full)

    def gone(self, *, status: str = "aborted") -> None:
        """Cancel the request after the client has reset the stream or disconnected, and record *status*."""
        self._open = False
        self._pending.clear()
        work, self.work = self.work, None
        if work is not None:
            work.abandon()
            self._connection.service.done(self, work, status)
