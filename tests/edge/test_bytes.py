"""Property tests: arbitrary input gives the same responses no matter how it is split into segments."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.client import Client
from edge.errors import EdgeError
from edge.heads import RequestHead
from edge.timeouts import Timeouts

WORDS = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"HEAD http://x/ HTTP/1.0\r\n", b"Host: x\r\n", b"\r\n",
     b"\n", b"\r", b"Content-Length: 3\r\n", b"Content-Length: 03\r\n", b"Transfer-Encoding: chunked\r\n",
     b"Transfer-Encoding : chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Connection: close\r\n",
     b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0;x=y\r\n\r\n",
     b"fffffffffffffffff\r\n", b"X: \x00\r\n", b" folded\r\n", b"\xff"]
)  # fmt: skip
BYTES = st.lists(WORDS | st.binary(max_size=6), max_size=14).map(b"".join)


class Transport(asyncio.Transport):
    """Transport that records writes and closing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("198.19.1.10", 40000) if name == "peername" else None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Recorded:
    """Recorded request that ends without a response."""

    began, status, answered, head_only = 0.0, 0, False, False

    def __init__(self, asked: list[tuple[bytes, bytes, bytes]], client: Client, head: RequestHead) -> None:
        self.asked, self.client, self.head = asked, client, head
        self.body = b""

    def start(self) -> None:
        if not self.head.has_body:
            self.receive_end()

    def receive_body(self, payload: bytes) -> None:
        self.body += payload

    def receive_end(self) -> None:
        self.asked.append((self.head.method, self.head.target, self.body))
        asyncio.get_running_loop().call_soon(lambda: self.client.finished(cut=False))

    def tunnel_data(self, data: bytes) -> None:
        raise AssertionError(data)

    def client_writable(self, *, writable: bool) -> None:
        pass

    def abandon(self) -> None:
        pass


class Recorder:
    """Service that records requests and sends no response."""

    timeouts = Timeouts()

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def connected(self, client: Any) -> None:
        pass

    def disconnected(self, client: Any) -> None:
        pass

    def done(self, client: Any, work: Any, status: int | str, reason: str = "") -> None:
        pass

    def keep_alive_limit(self) -> float | None:
        return None

    def http2(self, client: Client) -> asyncio.Protocol:
        return client

    def handle(self, client: Any, head: RequestHead) -> Recorded:
        return Recorded(self.asked, client, head)


def outcome(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
    """Return the forwarded requests and the bytes sent to the client when *pieces* arrive one at a time."""

    async def run() -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
        recorder, transport = Recorder(), Transport()
        client = Client(recorder, scheme="http", pooled=True)
        client.connection_made(transport)
        for piece in pieces:
            client.data_received(piece)
        for _ in range(40):
            await asyncio.sleep(0)  # lets pending requests finish
        return recorder.asked, transport.written.partition(b"\r\n")[0]

    return asyncio.run(run())


@given(BYTES, st.lists(st.integers(1, 200), max_size=6))
def test_cutting_bytes_into_packets_changes_nothing(data: bytes, cuts: list[int]) -> None:
    places = sorted({cut for cut in cuts if cut < len(data)})
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert outcome(pieces) == outcome([data])


@given(BYTES)
def test_no_bytes_break_the_edge(data: bytes) -> None:
    _, answered = outcome([data])
    assert answered == b"" or answered.startswith((b"HTTP/1.1 100", b"HTTP/1.1 4", b"HTTP/1.1 5"))


def test_an_error_names_its_status() -> None:
    assert b'"error": "Bad Gateway"' in EdgeError(502, "x").body()
