"""HTTP/2 server side of the edge (RFC 9113), based on the h2 library; requests are forwarded to origins over HTTP/1.1.

Each HTTP/2 request is serialised as an HTTP/1.1 head and parsed by the strict parser of `edge.heads`, so that every
rule is implemented only once. Names and values that contain bytes which could start another header line are rejected
first.

The connection is closed with ENHANCE_YOUR_CALM if the client resets too many streams (rapid reset attack,
CVE-2023-44487) or sends too many control frames.
"""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import HPACKError
from hyperframe.frame import GoAwayFrame

from edge.client import Client, Service, Work, describe, read_head
from edge.errors import BadRequestError, EdgeError
from edge.heads import MAX_HEAD, ResponseHead
from edge.http2_input import as_http_1
from edge.timeouts import Timeouts
from edge.upstream import HIGH_WATER
from wireformat.http2 import FrameHeaders

#: Maximum number of concurrent streams per connection, equal to the defaults of nginx and Envoy.
MAX_STREAMS = 128
#: Flow-control windows of a stream and of a connection: received data that is not forwarded yet, in bytes.
STREAM_WINDOW, CONNECTION_WINDOW = 256 * 1024, 1024 * 1024
#: Maximum stream resets and maximum control frames per time window, and the length of that window in seconds.
MAX_RESETS, MAX_CONTROL, WINDOW = 200, 1000, 10.0
#: Control frames that each HEADERS or DATA frame sent to the client permits in addition, because a client acknowledges
#: data with WINDOW_UPDATE, on the stream and on the connection. Envoy's limit is the same.
CONTROL_PER_FRAME = 10
#: Interval between checks for stalled streams of a connection, in seconds.
LOOK = 1.0
_NEVER = float("inf")
#: Response fields that are connection-specific in HTTP/1.1 and forbidden in HTTP/2 (RFC 9113 section 8.2.2).
_HTTP_1_ONLY = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection"})


class Stream:
    """One HTTP/2 request and its response; implements `edge.exchange.Downstream`."""

    def __init__(self, connection: "Http2Client", number: int) -> None:
        self._connection, self.number = connection, number
        # Attributes that `Downstream` and `Responder` require; they are the same for all streams of a connection.
        self.suffix, self.pooled, self.distrusted = connection.suffix, connection.pooled, connection.distrusted
        self.scheme, self.listener, self.address = connection.scheme, connection.listener, connection.address
        self.work: Work | None = None
        self.paused = False
        #: Whether the request body has been received completely.
        self.received = False
        #: Time at which body data was last received, on the monotonic clock.
        self.heard = time.monotonic()
        #: Time at which response data was last sent, on the monotonic clock.
        self.moved = self.heard
        #: Start of the window over which the rate of the body is measured, and body bytes received in it.
        self._window, self._window_bytes = self.heard, 0
        self._reading = True
        #: Received bytes for which no WINDOW_UPDATE has been sent yet, because the origin is slower than the client.
        self._unacknowledged = 0
        self._pending = bytearray()
        self._ends = False
        self._open = True

    # --- the request --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, flow: int) -> None:
        """Process part of the request body; *flow* is its size for flow control in bytes, padding included."""
        if self._reading:
            self._connection.acknowledge(self.number, flow)
        else:
            self._unacknowledged += flow
        if data:
            self.heard = time.monotonic()
            self._window_bytes += len(data)
            if self.work is not None:
                self.work.receive_body(data)

    def body_stalls(self, now: float, limits: Timeouts) -> str:
        """Return why the request body arrives too slowly, or an empty string if it does not."""
        if not self._reading:  # the origin is slow, so do not blame the client
            self._window, self._window_bytes, self.heard = now, 0, now
        if now - self.heard >= limits.body:
            return f"no whole request body: nothing came for {limits.body:g} s"
        if now - self._window >= limits.rate_window:
            rate = self._window_bytes / (now - self._window)
            self._window, self._window_bytes = now, 0
            if rate < limits.min_rate:
                return f"expected a body at {limits.min_rate:g} bytes/s, got {rate:.0f}"
        return ""

    def receive_end(self) -> None:
        """Process the end of the request body."""
        self.received = True
        if self.work is not None:
            self.work.receive_end()

    def pause_reading(self) -> None:
        """Stop sending WINDOW_UPDATE, so that the client must stop when the stream's window is used up."""
        self._reading = False

    def resume_reading(self) -> None:
        """Send the WINDOW_UPDATE that was held back."""
        self._reading, self.heard = True, time.monotonic()
        flow, self._unacknowledged = self._unacknowledged, 0
        if flow:
            self._connection.acknowledge(self.number, flow)

    # --- the response -------------------------------------------------------------------------------------------------

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head and the first *payload* of the body; *whole* means that the response is then complete."""
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
        self._connection.service.done(self, work, error.status)

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
        """Fail, because this is never called: HTTP/2 has no 101, and Upgrade is not forwarded."""
        raise AssertionError((head.status, len(data)))

    def _send_head(self, status: int, lines: bytes, *, end: bool) -> None:
        fields = [(b":status", b"%d" % status)]
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            if name.lower() not in _HTTP_1_ONLY:
                fields.append((name.lower(), value))
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


class Http2Client(asyncio.Protocol):
    """Client connection that speaks HTTP/2."""

    def __init__(self, client: "Client") -> None:
        """Take over the connection of *client*, whose handshake is complete and which has not read any data yet."""
        self.service: Service = client.service
        self.scheme, self.pooled, self.rejected, self.tls = client.scheme, client.pooled, client.rejected, client.tls
        self.listener = client.listener
        self.distrusted, self.more = client.distrusted, b""
        self.address, self.suffix = "", b""
        self.session: tuple[str, bool] | None = None
        self._announced, self._mutual = client.announced, client.mutual
        self.transport: Any = None
        self.paused = False
        self.deadline = client.deadline
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._frames = FrameHeaders()
        self._streams: dict[int, Stream] = {}
        self._since = time.monotonic()
        self._window, self._resets, self._control = time.monotonic(), 0, 0
        #: HEADERS and DATA frames sent in the current window.
        self.frames_sent = 0
        self._closing = self._sent_away = False

    def __repr__(self) -> str:
        return f"<Http2Client {self.address or '?'} streams={len(self._streams)}{' closing' if self._closing else ''}>"

    @property
    def quiet_since(self) -> float | None:
        """Start of the time without open streams, on the monotonic clock; None during a request or while closing."""
        return None if self._streams or self._closing or self.rejected else self._since

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface with the server's SETTINGS."""
        self.transport = transport
        self.address = self._announced or (transport.get_extra_info("peername") or ("", 0))[0]
        self.suffix, self.session = describe(transport, self.address, self.scheme, mutual=self._mutual)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            },
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self.flush()
        self.deadline = time.monotonic() + self.service.timeouts.head
        self.service.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - signature of asyncio.Protocol
        """Cancel all requests of the connection."""
        self.transport, self._closing = None, True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.gone()
        self.service.disconnected(self)

    def data_received(self, data: bytes) -> None:
        """Parse received frames and process them."""
        if self._sent_away or (self._closing and not self._streams):
            return
        if (code := self._frames.check(data)) is not None:
            self.h2.close_connection(code)
            self._send_away()
            return
        try:
            for event in self.h2.receive_data(data):
                if not self._sent_away:
                    self._act(event)
        except ProtocolError as error:
            if isinstance(error.__cause__, HPACKError) and not isinstance(error, DenialOfServiceError):
                # Replace h2's GOAWAY, whose code is PROTOCOL_ERROR (RFC 9113 section 4.3).
                self.h2.clear_outbound_data_buffer()
                self.h2.close_connection(ErrorCodes.COMPRESSION_ERROR)
            self._send_away()  # also sends the GOAWAY frame that h2 has generated
            return
        self.flush()
        if not self._streams:
            self._idle()

    def eof_received(self) -> bool:
        """Close the connection after the client's FIN."""
        return False

    def pause_writing(self) -> None:
        """Stop sending, because the transport's write buffer is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """Resume sending, because the transport's write buffer has drained."""
        self.paused = False
        for stream in list(self._streams.values()):
            stream.flush()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _act(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._request(event)
            case DataReceived():
                stream = self._streams.get(event.stream_id or 0)
                self._count(control=not event.data)
                if stream is None:
                    self.acknowledge(event.stream_id or 0, event.flow_controlled_length or 0)
                else:
                    self._feed(stream, event.data or b"", event.flow_controlled_length or 0)
            case StreamEnded():
                if (stream := self._streams.get(event.stream_id or 0)) is not None:
                    stream.receive_end()
            case StreamReset():
                self._count(resets=1)
                if (stream := self._streams.pop(event.stream_id or 0, None)) is not None:
                    stream.gone()
            case WindowUpdated():
                self._count(control=1)
                ready = [event.stream_id] if event.stream_id else list(self._streams)
                for number in ready:
                    if (stream := self._streams.get(number or 0)) is not None:
                        stream.flush()
            case RemoteSettingsChanged():
                self._count(control=1)
                for stream in list(self._streams.values()):
                    stream.flush()
            case PingReceived() | PriorityUpdated() | TrailersReceived():
                self._count(control=1)
            case ConnectionTerminated():
                self._close_when_done()

    def _request(self, event: RequestReceived) -> None:
        number = event.stream_id or 0
        stream = self._streams[number] = Stream(self, number)
        ended = event.stream_ended is not None
        if self._closing:
            self.reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        try:
            head = read_head(as_http_1(event.headers or [], ended=ended))
            stream.work = work = self.service.handle(stream, head)
        except EdgeError as error:
            stream.received = ended
            stream.failed(error)
            return
        stream.received = ended and not head.has_body
        self.deadline = stream.heard + LOOK
        if work is None:
            return
        if (b"expect", b"100-continue") in (event.headers or []) and not ended:
            self.send(lambda h2: h2.send_headers(number, [(b":status", b"100")]))
        work.start()

    def _feed(self, stream: Stream, data: bytes, flow: int) -> None:
        try:
            stream.receive(data, flow)
        except EdgeError as error:
            stream.stop(error)

    def _count(self, resets: int = 0, control: int = 0) -> None:
        """Count stream resets and control frames; close the connection if either count exceeds its limit."""
        now = time.monotonic()
        if now - self._window > WINDOW:
            self._window, self._resets, self._control, self.frames_sent = now, 0, 0, 0
        self._resets += resets
        self._control += control
        if self._resets > MAX_RESETS or self._control > MAX_CONTROL + CONTROL_PER_FRAME * self.frames_sent:
            self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._send_away()

    def acknowledge(self, number: int, flow: int) -> None:
        """Send WINDOW_UPDATE for *flow* bytes on stream *number*."""
        if flow and number:
            self.send(lambda h2: h2.acknowledge_received_data(flow, number))

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """Reset a stream, whether or not its response was complete."""
        self._streams.pop(stream.number, None)
        stream.gone()
        self.send(lambda h2: h2.reset_stream(stream.number, code))
        if not self._streams:
            self._idle()

    def closed(self, stream: Stream) -> None:
        """Remove a stream whose response is complete; discard the rest of its request (RFC 9113 section 8.1)."""
        self._streams.pop(stream.number, None)
        if not stream.received:
            self.send(lambda h2: h2.reset_stream(stream.number, ErrorCodes.NO_ERROR))
        if not self._streams:
            self._idle()

    def send(self, action: Callable[[H2Connection], None]) -> None:
        """Generate frames with *action* and write them; does nothing if the client has already closed the stream."""
        if self.transport is None:
            return
        try:
            action(self.h2)
        except H2Error:
            return
        self.flush()

    def flush(self) -> None:
        """Write the frames that h2 has generated to the transport."""
        data = self.h2.data_to_send()
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    # --- called by the proxy ------------------------------------------------------------------------------------------

    def refuse(self, error: EdgeError) -> None:
        """Close the connection with the reason in GOAWAY, because there is no request to respond to."""
        self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, additional_data=str(error).encode()[:200])
        self._send_away()

    def drain(self) -> None:
        """Accept no further requests, and close the connection after all open streams have ended."""
        self._close_when_done()

    def evict(self) -> None:
        """Close an idle connection to make room for another client."""
        self._close_when_done()

    def abort(self) -> None:
        """Cut the connection without sending buffered data."""
        if self.transport is not None:
            self.transport.abort()

    def expire(self, now: float) -> None:
        """Handle time-outs of the connection, of request bodies and of clients that do not read their response."""
        limits = self.service.timeouts
        if self._closing:
            self.abort()
            return
        if not self._streams:
            self._close_when_done()
            return
        for stream in list(self._streams.values()):
            if not stream.received and stream.work is not None and (reason := stream.body_stalls(now, limits)):
                stream.stop(BadRequestError(408, reason))
            elif stream.work is None and now - stream.moved >= limits.send:
                self.reset(stream, ErrorCodes.CANCEL)
        self.deadline = now + LOOK

    def _idle(self) -> None:
        if self._sent_away:
            return
        self._since = time.monotonic()
        if self._closing:
            self._close()
        else:
            self.deadline = self._since + self.service.timeouts.idle

    def _close_when_done(self) -> None:
        if not self._closing:
            self._closing = True
            # Not through h2: after its own GOAWAY, h2 would not send data on the streams that are still open.
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(GoAwayFrame(0, last_stream_id=self.h2.highest_inbound_stream_id).serialize())
        if not self._streams:
            self._close()

    def _send_away(self) -> None:
        """Send GOAWAY and close after `timeouts.linger`; an immediate close could reset the connection first."""
        self._sent_away = True
        self.flush()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.gone()
        self._closing, self.deadline = True, _NEVER
        asyncio.get_running_loop().call_later(self.service.timeouts.linger, self._close)

    def _close(self) -> None:
        self._closing = True
        self.deadline = time.monotonic() + self.service.timeouts.send
        self.flush()
        if self.transport is not None:
            self.transport.close()
