"""Server-sent events for browsers (HTML Living Standard, section 9.2).

Each client receives the newest message of each kind.  A slow client misses older messages, so no queue builds up.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

#: Seconds without a message until a comment is sent, so that proxies do not close the idle connection.
HEARTBEAT = 10.0
#: Delay in milliseconds before a disconnected browser reconnects.
RETRY = 2000
#: Maximum number of clients at a time; a single user has a few pages open.
MAX_CLIENTS = 32


class Feed:
    """The newest message of each kind, and the clients waiting for the next message."""

    def __init__(self, heartbeat: float = HEARTBEAT, max_clients: int = MAX_CLIENTS) -> None:
        self.heartbeat, self.max_clients = heartbeat, max_clients
        self.clients = 0
        self.closed = False
        self._version = 0
        self._messages: dict[str, tuple[int, bytes]] = {}
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the maximum number of clients is reached."""
        return self.clients >= self.max_clients

    def publish(self, kind: str, data: str) -> None:
        """Send *data*, which must be a single line of JSON, to every client as an event of type *kind*."""
        self._version += 1
        self._messages[kind] = (self._version, f"event: {kind}\ndata: {data}\n\n".encode())
        self._wake()

    def close(self) -> None:
        """End the event streams of all clients."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yield the encoded events for one client until the feed is closed."""
        self.clients += 1
        sent = 0
        try:
            yield f"retry: {RETRY}\n\n".encode()
            while not self.closed:
                changed = self._changed
                news = [message for version, message in sorted(self._messages.values()) if version > sent]
                sent = self._version
                for message in news:
                    yield message
                if changed is not self._changed:
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.heartbeat):
                        await changed.wait()
                    continue
                yield b": still here\n\n"
        finally:
            self.clients -= 1

    def __repr__(self) -> str:
        return f"<Feed clients={self.clients} kinds={sorted(self._messages)} closed={self.closed}>"
