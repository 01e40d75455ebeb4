"""DNS over HTTPS on HTTP/2 (RFC 8484, RFC 9113), based on the h2 library.

A connection on which the client resets many streams (rapid reset, CVE-2023-44487) or sends many frames without a
request is closed with the error ENHANCE_YOUR_CALM. Older versions of HTTP get the status 505.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field

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
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from encrypted.doh import MAX_QUERY, MEDIA_TYPE, DohError, Head, check, max_age, query_of
from serving import Connection, Connections, Reply, adapt
from wireformat.http2 import FrameHeaders

#: Maximum number of concurrent streams per connection, equal to the defaults of nginx and Envoy.
MAX_STREAMS = 128
#: Maximum size of a request's header fields, in bytes.
MAX_FIELDS = 16 * 1024
#: Maximum numbers of stream resets and of other frames without a request per time window, and the length of the window
#: in seconds.
MAX_RESETS, MAX_CONTROL, WINDOW = 200, 1000, 10.0
#: Maximum number of bytes of a request body that are read and discarded after an early error response; if more bytes
#: arrive, the stream is reset.
MAX_DISCARDED = 1 << 20
#: Maximum number of bytes of one connection that are processed before other connections get their turn.
TURN = 16 * 1024
#: Response to a client that does not speak HTTP/2.
_TOO_OLD = b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(slots=True)
class _Stream:
    """One request, and the unsent part of its response."""

    head: Head
    body: bytearray = field(default_factory=bytearray)
    #: Whether the whole request has been received.
    ended: bool = False
    #: Number of bytes of the body that were discarded because the request had already been refused.
    discarded: int = 0
    #: Whether the response has been started.
    answered: bool = False
    unsent: bytes = b""


class Http2(Connection):
    """One HTTP/2 connection."""

    def __init__(self, service: Connections) -> None:
        super().__init__(service)
        config = H2Configuration(client_side=False, header_encoding=None)
        self._h2, self._frames = H2Connection(config), FrameHeaders()
        self._streams: dict[int, _Stream] = {}
        self._window, self._resets, self._control = self._loop.time(), 0, 0
        self._speaks_http2 = False
        #: Received bytes that are processed in a later turn, or once the client has read its responses.
        self._received = bytearray()

    def negotiated(self, protocol: str | None, /) -> asyncio.Protocol:
        """Record whether the client speaks HTTP/2 (ALPN, RFC 7301)."""
        self._speaks_http2 = protocol == "h2"
        return self

    # --- the transport's protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the server's SETTINGS."""
        super().connection_made(transport)
        if not self._speaks_http2:
            self._transport.write(_TOO_OLD)
            self.close()
            return
        values = {SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS, SettingCodes.MAX_HEADER_LIST_SIZE: MAX_FIELDS}
        self._h2.local_settings = Settings(client=False, initial_values=values)
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Process the frames in *data*, after all bytes received earlier."""
        if not self._received:
            self._received += data
            self.proceed()
        else:
            self._received += data

    def pause_writing(self) -> None:
        """Read no further requests until the client has read its responses."""
        super().pause_writing()
        self._transport.pause_reading()

    def proceed(self) -> None:
        """Process at most `TURN` received bytes, then let other connections and timers run."""
        if self._ending or not self._writable.is_set():
            return
        part = bytes(self._received[:TURN])
        if part:
            self._process(part)
            del self._received[:TURN]
        if self._received:
            self._transport.pause_reading()
            self._loop.call_soon(self.proceed)
        elif self._writable.is_set():
            self._transport.resume_reading()

    def _process(self, data: bytes) -> None:
        if (code := self._frames.check(data)) is not None:
            self._send_away(code)
            return
        try:
            for event in self._h2.receive_data(data):
                self._act(event)
        except ProtocolError:
            self._flush()  # send the GOAWAY frame that h2 has prepared
            super().close()
            return
        self._flush()

    def close(self) -> None:
        """Send GOAWAY and the buffered data, then close the connection."""
        if not self._ending and self._speaks_http2:
            with contextlib.suppress(H2Error):
                self._h2.close_connection()
        self._flush()
        super().close()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _act(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived():
                self._receive(event)
            case StreamEnded():
                if (stream := self._streams.get(event.stream_id or 0)) is not None:
                    stream.ended = True
                    if not stream.answered:
                        self._ask(event.stream_id or 0, stream)
                    elif not stream.unsent:
                        del self._streams[event.stream_id or 0]
            case StreamReset():
                self._streams.pop(event.stream_id or 0, None)
                self._count(resets=1)
            case WindowUpdated() | RemoteSettingsChanged():
                self._count(control=1)
                for number in list(self._streams):
                    self._send(number)
            case PingReceived() | PriorityUpdated():
                self._count(control=1)
            case ConnectionTerminated():
                self.close()

    def _count(self, resets: int = 0, control: int = 0) -> None:
        now = self._loop.time()
        if now - self._window > WINDOW:
            self._window, self._resets, self._control = now, 0, 0
        self._resets += resets
        self._control += control
        if self._resets > MAX_RESETS or self._control > MAX_CONTROL:
            self._send_away(ErrorCodes.ENHANCE_YOUR_CALM)

    def _send_away(self, code: ErrorCodes) -> None:
        if not self._ending:
            self._h2.close_connection(code)
            self._flush()
            super().close()

    # --- requests and responses ---------------------------------------------------------------------------------------

    def _begin(self, event: RequestReceived) -> None:
        number = event.stream_id or 0
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers or ()}
        head = Head(fields.get(":method", ""), fields.get(":path", ""), fields.get("content-type", ""))
        stream = self._streams[number] = _Stream(head)
        try:
            check(head)
        except DohError as error:
            self._refuse(number, stream, error)

    def _receive(self, event: DataReceived) -> None:
        number, size = event.stream_id or 0, event.flow_controlled_length or 0
        if size:
            with contextlib.suppress(H2Error):  # the stream may be closed already
                self._h2.acknowledge_received_data(size, number)
        if not event.data:
            self._count(control=1)
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.answered:
            stream.discarded += size
            if stream.discarded > MAX_DISCARDED:
                with contextlib.suppress(H2Error):  # the stream may be closed already
                    self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
                del self._streams[number]
            return
        stream.body += event.data or b""
        if len(stream.body) > MAX_QUERY:
            self._refuse(number, stream, DohError(413, f"expected a query of at most {MAX_QUERY} bytes"))

    def _ask(self, number: int, stream: _Stream) -> None:
        """Pass the query in a complete request to the handler."""
        self.used = self._loop.time()
        service = self._service
        try:
            query = query_of(stream.head, bytes(stream.body))
            reply = service.handler(query, self._client, service.transport)
        except DohError as error:
            self._refuse(number, stream, error)
        except Exception as error:  # a failure on one query must not affect the replies to others
            self.failed(error)
            self._refuse(number, stream, DohError(500, "the resolver failed"))
        else:
            if isinstance(reply, Awaitable):
                self.later(self._late(number, stream, query, reply))
            else:
                self._reply(number, stream, query, reply)

    async def _late(self, number: int, stream: _Stream, query: bytes, reply: Awaitable[Reply]) -> None:
        try:
            content = await reply
        except Exception as error:  # a failure on one query must not affect the replies to others
            self.failed(error)
            content = None
        self.used = self._loop.time()
        self._reply(number, stream, query, content)
        self._flush()

    def _reply(self, number: int, stream: _Stream, query: bytes, reply: Reply) -> None:
        if not isinstance(reply, (bytes, bytearray)):
            self._refuse(number, stream, DohError(503, "the resolver sent no reply"))
            return
        age = max_age(query, reply)
        body = bytes(adapt(query, reply, idle=0, encrypted=True))
        self._respond(number, stream, 200, [("content-type", MEDIA_TYPE), ("cache-control", f"max-age={age}")], body)

    def _refuse(self, number: int, stream: _Stream, error: DohError) -> None:
        fields = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
        if error.status == 405:
            fields.append(("allow", "GET, HEAD, POST"))
        self._respond(number, stream, error.status, fields, f"{error}\n".encode())

    def _respond(self, number: int, stream: _Stream, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        stream.answered = True
        if number not in self._streams:
            return  # the client has reset the stream
        head = [(":status", str(status)), *fields, ("content-length", str(len(body)))]
        stream.unsent = b"" if stream.head.method == "HEAD" else body
        try:
            self._h2.send_headers(number, head, end_stream=not stream.unsent)
        except H2Error:  # the stream is closed already
            stream.unsent, stream.ended = b"", True
        self._send(number)

    def _send(self, number: int) -> None:
        """Send as much of a response as the client's flow-control windows allow.

        The stream is removed once the response is complete and the whole request has been received. A request that was
        refused early is read to its end, because a client that is still sending may report a reset instead of the
        response.
        """
        stream = self._streams[number]
        if not stream.answered:
            return
        try:
            while stream.unsent:
                room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
                if room <= 0:
                    return
                part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
                self._h2.send_data(number, part, end_stream=not stream.unsent)
        except H2Error:  # the stream is closed already
            stream.ended = True
        if stream.ended:
            del self._streams[number]

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
