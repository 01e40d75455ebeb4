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
from hpack import Encoder, HPACKError
from hyperframe.frame import GoAwayFrame

from edge.client import Client, read_head
from edge.connection_info import describe
from edge.errors import BadRequestError, EdgeError
from edge.glimpse import of_fields
from edge.heads import MAX_HEAD
from edge.http2_input import as_http_1
from edge.http2_stream import Stream
from edge.interfaces import Service
from edge.upstream import HIGH_WATER
from wireformat.http2 import FrameHeaders

#: Maximum number of concurrent streams per connection, equal to the defaults of nginx and Envoy.
MAX_STREAMS = 128
#: Flow-control windows of a stream and of a connection, in bytes; they bound the data received but not yet forwarded.
STREAM_WINDOW, CONNECTION_WINDOW = 256 * 1024, 1024 * 1024
#: Maximum stream resets and maximum control frames per time window, and the length of that window in seconds.
MAX_RESETS, MAX_CONTROL, WINDOW = 200, 1000, 10.0
#: Additional control frames allowed per HEADERS or DATA frame sent to the client, because the client acknowledges data
#: with WINDOW_UPDATE on the stream and on the connection. Envoy has the same limit.
CONTROL_PER_FRAME = 10
#: Interval between checks for stalled streams of a connection, in seconds.
LOOK = 1.0
_NEVER = float("inf")


class PlainEncoder(Encoder):
    """HPACK encoder without Huffman coding, which is slow in pure Python."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """Return the encoded header block, without Huffman coding by default."""
        return super().encode(headers, huffman)


class Http2Client(asyncio.Protocol):
    """Client connection that speaks HTTP/2."""

    def __init__(self, client: Client) -> None:
        """Take over the connection of *client*, whose handshake is complete and which has not read any data yet."""
        self.service: Service = client.service
        self.scheme, self.pooled, self.rejected, self.tls = client.scheme, client.pooled, client.rejected, client.tls
        self.listener = client.listener
        self.distrusted, self.more = client.distrusted, b""
        self.address, self.suffix, self.certificate = "", b"", 0
        self.session: tuple[str, bool] | None = None
        self._announced, self._mutual = client.announced, client.mutual
        self.transport: Any = None
        self.paused = False
        self.deadline = client.deadline
        # `edge.heads` has already validated the response fields and made them lower-case; h2 need not check them again.
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.encoder = PlainEncoder()
        self._frames = FrameHeaders()
        self._streams: dict[int, Stream] = {}
        self._since = time.monotonic()
        self._window, self._resets, self._control = time.monotonic(), 0, 0
        #: HEADERS and DATA frames sent in the current window.
        self.frames_sent = 0
        self._closing = self._sent_away = self._flushing = False

    def __repr__(self) -> str:
        return f"<Http2Client {self.address or '?'} streams={len(self._streams)}{' closing' if self._closing else ''}>"

    @property
    def quiet_since(self) -> float | None:
        """When the connection last became idle, on the monotonic clock; None during a request or while closing."""
        return None if self._streams or self._closing or self.rejected else self._since

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface with the server's SETTINGS."""
        self.transport = transport
        self.address = self._announced or (transport.get_extra_info("peername") or ("", 0))[0]
        self.suffix, self.session, self.certificate = describe(
            transport, self.address, self.scheme, mutual=self._mutual
        )
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
        self._write()
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
        self._write()
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
            stream.asked = head = read_head(as_http_1(event.headers or [], ended=ended))
            stream.work = work = self.service.handle(stream, head)
        except EdgeError as error:
            stream.received = ended
            stream.asked = stream.asked or of_fields(event.headers or [])
            stream.failed(error)
            return
        stream.received = ended and not head.has_body
        self.deadline = stream.moved + LOOK
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
        """Write the frames that h2 has generated at the end of this iteration of the event loop, in a single write."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._flushing = False
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
            if not stream.received and stream.work is not None and (reason := stream.body_stalls(now)):
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
            self._write()
            # Bypass h2, which after its own GOAWAY would not send data on the streams that are still open.
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(GoAwayFrame(0, last_stream_id=self.h2.highest_inbound_stream_id).serialize())
        if not self._streams:
            self._close()

    def _send_away(self) -> None:
        """Send GOAWAY and close after `timeouts.linger`; an immediate close could reset the connection first."""
        self._sent_away = True
        self._write()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.gone()
        self._closing, self.deadline = True, _NEVER
        asyncio.get_running_loop().call_later(self.service.timeouts.linger, self._close)

    def _close(self) -> None:
        self._closing = True
        self.deadline = time.monotonic() + self.service.timeouts.send
        self._write()
        if self.transport is not None:
            self.transport.close()
