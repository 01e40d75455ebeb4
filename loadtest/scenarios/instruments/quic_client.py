"""HTTP/3 client based on aioquic: measures time to first byte, resumes sessions, and can change its address."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent
from aioquic.tls import SessionTicket

from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address
from scenarios.instruments.page_loads import AT_ONCE, Pages

#: Seconds after which a request or a handshake fails.
TIMEOUT = 10.0
#: Time in seconds after which an idle connection is closed; the server's limit applies if it is shorter.
IDLE = 120.0
#: Number of pages that are loaded as soon as a connection is open.  They enlarge the server's congestion window, so
#: that the server sends later pages in one burst.  They also fill QPACK's dynamic table (RFC 9204), so that no later
#: response depends on another packet that adds an entry to this table.
WARM_UP = 3


class QuicError(OSError):
    """The server did not answer in time, or refused the request."""


@dataclass(slots=True)
class Response:
    """One response, with times as `time.perf_counter` returns them."""

    sent: float
    first: float = 0.0
    body: bytearray = field(default_factory=bytearray)
    status: int = 0

    @property
    def first_byte_ms(self) -> float:
        """Milliseconds from the request to the first byte of the response."""
        return 1000 * (self.first - self.sent)


class Client(QuicConnectionProtocol):
    """One QUIC connection with HTTP/3, created by `connect`."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._http = H3Connection(quic)
        self._responses: dict[int, tuple[Response, asyncio.Future[Response]]] = {}
        #: Start of the connection, as `time.perf_counter` returned it.
        self.began = time.perf_counter()
        #: Whether the server accepted early data.
        self.early = False

    def quic_event_received(self, event: QuicEvent) -> None:
        """Record the parts of responses that a QUIC event contains."""
        if isinstance(event, HandshakeCompleted):
            self.early = event.early_data_accepted
        for each in self._http.handle_event(event):
            if not isinstance(each, HeadersReceived | DataReceived) or each.stream_id not in self._responses:
                continue
            response, done = self._responses[each.stream_id]
            response.first = response.first or time.perf_counter()
            if isinstance(each, HeadersReceived):
                response.status = int(dict(each.headers)[b":status"])
            else:
                response.body += each.data
            if each.stream_ended and not done.done():
                done.set_result(response)

    @property
    def port(self) -> int:
        """Local UDP port of the connection."""
        return int(self._transport.get_extra_info("sockname")[1]) if self._transport is not None else 0

    def ask(self, host: str, paths: Sequence[str]) -> list["asyncio.Future[Response]"]:
        """Send GET requests on separate streams, in as few packets as possible; return futures of their responses."""
        futures = []
        for path in paths:
            stream = self._quic.get_next_available_stream_id()
            done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            self._responses[stream] = (Response(time.perf_counter()), done)
            names = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
            self._http.send_headers(stream, [(k.encode(), v.encode()) for k, v in names.items()], end_stream=True)
            futures.append(done)
        self.transmit()
        return futures

    async def get(self, host: str, path: str) -> Response:
        """Send one GET request and return its response; raise `QuicError` if no response with status 200 arrives."""
        response = (await gather(self.ask(host, [path])))[0]
        if response.status != 200:
            raise QuicError(f"{host}{path}: expected status 200, got {response.status}")
        return response

    def forget(self) -> None:
        """Close the socket immediately, because nothing that the server sends after CONNECTION_CLOSE is needed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    async def move(self) -> None:
        """Continue the connection from another local port with another connection ID (RFC 9000 section 9)."""
        old = self._transport
        await _socket(self)  # replaces this connection's transport
        self.change_connection_id()
        if old is not None:
            old.close()


async def gather(futures: Sequence["asyncio.Future[Response]"]) -> list[Response]:
    """Wait for all responses and return them; raise `QuicError` if one takes more than `TIMEOUT` seconds."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return list(await asyncio.gather(*futures))
    except TimeoutError:
        raise QuicError(f"no response within {TIMEOUT:g} s") from None


@asynccontextmanager
async def connect(
    to: Address, trust: Path, tickets: list[SessionTicket] | None = None, *, early: bool = False
) -> AsyncIterator[Client]:
    """Yield a connection.

    Args:
        to: server.
        trust: root certificate (PEM).
        tickets: list to which the server's session tickets are added; with *early*, the last one is removed and used.
        early: whether to resume a session and send the first request as early data; the connection is then yielded
            before anything has been sent.

    Raises:
        QuicError: the handshake takes more than `TIMEOUT` seconds.
    """
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=to.host, idle_timeout=IDLE)
    settings.load_verify_locations(str(trust))
    if early and tickets:
        settings.session_ticket = tickets.pop()
    handler = tickets.append if tickets is not None else None
    client = Client(QuicConnection(configuration=settings, session_ticket_handler=handler))
    await _socket(client)
    try:
        client.connect((to.address, to.port), transmit=settings.session_ticket is None)
        if settings.session_ticket is None:
            try:
                async with asyncio.timeout(TIMEOUT):
                    await client.wait_connected()
            except TimeoutError:
                raise QuicError(f"{to.host}: no handshake within {TIMEOUT:g} s") from None
        yield client
    finally:
        client.close()
        client.forget()


async def _socket(client: Client) -> asyncio.DatagramTransport:
    """Replace the socket from which *client* sends."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: client, local_addr=("0.0.0.0", 0))
    return transport


class QuicPages(Pages[tuple[Client, AsyncExitStack]]):
    """Pages over HTTP/3: one stream per response."""

    async def open(self, connections: int) -> None:
        """Open connections; raise `QuicError` on failure."""
        left = self.needs + connections
        while left > 0:
            self.stock += await asyncio.gather(*(self._open() for _ in range(min(left, AT_ONCE))))
            left -= AT_ONCE

    async def _open(self) -> tuple[Client, AsyncExitStack]:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(connect(self.to, TRUST_ANCHOR))
        for _ in range(WARM_UP):
            await gather(client.ask(self.to.host, self.paths))
        return client, stack

    async def load(self) -> list[float]:
        """Load one page over the newest connection; raise `QuicError` if a response fails."""
        client, stack = self.stock[-1]
        responses = await gather(client.ask(self.to.host, self.paths))
        times = [each.first_byte_ms for each in responses]
        if max(times) > self.limit:
            self.stock.pop()
            await stack.aclose()
        return times

    async def close(self) -> None:
        """Close all connections."""
        while self.stock:
            await self.stock.pop()[1].aclose()
