"""DNS queries over HTTPS (RFC 8484) as requests on one HTTP/2 connection, answered in any order (sans-IO)."""

from collections import deque
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error

from stub.channel import Channel
from stub.errors import MalformedReplyError, ProtocolError
from stub.message import parse
from stub.transport import HTTP2, Transport

#: Path of every request, and media type of queries and replies.
PATH, MEDIA_TYPE = "/dns-query", "application/dns-message"
#: Maximum size of a reply in bytes, which is the maximum size of a DNS message.
MAX_REPLY = 65_535


#: Maximum number of concurrent requests on a connection; servers should allow at least 100 (RFC 9113 section 6.5.2).
MAX_STREAMS = 100


@dataclass(slots=True)
class _Request:
    """A request, and the part of its response that has been received."""

    ident: int
    query: bytes
    status: bytes = b""
    body: bytearray = field(default_factory=bytearray)


class HttpsChannel(Channel):
    """The client's end of one HTTP/2 connection."""

    def __init__(self, transport: Transport, server: str) -> None:
        super().__init__(transport, server)
        self._authority = transport.name
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        self._next = 0
        #: Requests that wait until the server allows another stream.
        self._waiting: deque[_Request] = deque()
        #: Requests that have been sent but not completely answered, keyed by stream ID.
        self._requests: dict[int, _Request] = {}

    def submit(self, wire: bytes) -> int:
        """Queue a query with its ID set to 0 (RFC 8484 section 4.1); return the number that identifies the reply."""
        self._next += 1
        self._waiting.append(_Request(self._next, bytes(2) + wire[2:]))
        self._start()
        return self._next

    def withdraw(self, ident: int) -> None:
        """Stop waiting for the reply *ident*; the reply is discarded if it still arrives."""
        self._waiting = deque(each for each in self._waiting if each.ident != ident)

    def _start(self) -> None:
        """Send waiting requests for which the server allows a stream."""
        while self._waiting and len(self._requests) < min(MAX_STREAMS, self._h2.remote_settings.max_concurrent_streams):
            request, stream = self._waiting.popleft(), self._h2.get_next_available_stream_id()
            self._requests[stream] = request
            head = {":method": "POST", ":scheme": "https", ":authority": self._authority, ":path": PATH}
            head |= {"accept": MEDIA_TYPE, "content-type": MEDIA_TYPE, "content-length": str(len(request.query))}
            self._h2.send_headers(stream, list(head.items()))
            self._h2.send_data(stream, request.query, end_stream=True)
        self._out += self._h2.data_to_send()

    def _protocol(self, chosen: str | None) -> None:
        if chosen != HTTP2:
            raise ProtocolError("the server does not speak HTTP/2")

    def _replies(self) -> dict[int, bytes]:
        replies: dict[int, bytes] = {}
        try:
            events = self._h2.receive_data(bytes(self._in))
        except H2Error as error:
            raise ProtocolError(f"the server violates HTTP/2: {error}") from None
        finally:
            self._in.clear()
        for event in events:
            self._act(event, replies)
        self._start()
        return replies

    def _act(self, event: Event, replies: dict[int, bytes]) -> None:
        if isinstance(event, ConnectionTerminated):
            raise ConnectionError("the server closed the connection")
        stream: int = getattr(event, "stream_id", None) or 0
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
        request = self._requests.get(stream)
        if request is None:
            return
        match event:
            case ResponseReceived():
                request.status = dict(event.headers or ()).get(b":status", b"")
            case DataReceived():
                request.body += event.data or b""
                if len(request.body) > MAX_REPLY:
                    raise ProtocolError(f"expected a reply of at most {MAX_REPLY} bytes")
            case StreamReset():
                raise ProtocolError("the server reset a request")
            case StreamEnded():
                if request.status != b"200":
                    raise ProtocolError(f"the server answered with HTTP status {request.status.decode()}")
                try:
                    parse(request.query, bytes(request.body))
                except MalformedReplyError as error:
                    raise ProtocolError(f"the server sent no reply to the query: {error}") from None
                del self._requests[stream]
                replies[request.ident] = bytes(request.body)
