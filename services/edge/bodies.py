"""Where the body of a message ends (RFC 9112 sections 6 and 7): by length, in chunks, or with the connection.

A body takes bytes as they come and returns the payload among them; `done` says that the message is whole, and `rest`
holds what came after it.
"""

import re
from typing import Protocol

from edge.heads import Framing

#: Bytes of a chunk's size line and of all trailers: what other servers accept, and no room for more.
MAX_SIZE_LINE, MAX_TRAILERS = 1024, 8192
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class BodyError(ValueError):
    """The bytes are no body of the announced framing."""


class Body(Protocol):
    """The body of one message."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Return the payload in *data*; raise `BodyError` where it is malformed."""


class LengthBody:
    """A body of a given number of bytes."""

    __slots__ = ("_left", "done", "rest")

    def __init__(self, length: int) -> None:
        self._left, self.done, self.rest = length, length == 0, b""

    def feed(self, data: bytes) -> bytes:
        """Return the payload in *data*."""
        if len(data) >= self._left:
            data, self.rest = data[: self._left], data[self._left :]
            self.done = True
        self._left -= len(data)
        return data


class ChunkedBody:
    """A body in chunks; trailers are checked and dropped, since a field after the body could contradict the head."""

    __slots__ = ("_buffer", "_left", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self.done, self.rest = False, b""
        self._buffer = b""
        #: Bytes that are missing of the chunk under way, its CRLF included; 0 between chunks.
        self._left = 0
        #: Bytes of trailers so far; None before the last chunk.
        self._trailers: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the payload in *data*; raise `BodyError` for a malformed chunk."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        payload: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                at = self._chunk(data, at, payload)
                if self._left:
                    break
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                break
            line, at = data[at:end], end + 2
            if self._trailers is None:
                self._size_line(line)
            else:
                self._trailer(line)
        else:
            self.rest = data[at:]
        return b"".join(payload)

    def _chunk(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Take what *data* has of the chunk under way; return where the next thing begins."""
        taken = data[at : at + self._left]
        self._left -= len(taken)
        if self._left >= 2:
            payload.append(taken)
        else:  # its CRLF has begun
            ending = min(2 - self._left, len(taken))
            content, crlf = taken[: len(taken) - ending], taken[len(taken) - ending :]
            if crlf != b"\r\n"[2 - self._left - ending : 2 - self._left]:
                raise BodyError(f"expected CRLF after a chunk, got {crlf!r}")
            payload.append(content)
        return at + len(taken)

    def _keep(self, beginning: bytes) -> None:
        """Remember the beginning of a line, unless no line can begin so."""
        limit = MAX_SIZE_LINE if self._trailers is None else MAX_TRAILERS
        if (
            len(beginning) > limit
            or b"\n" in beginning
            or (self._trailers is None and not self._may_be_size(beginning))
        ):
            raise BodyError(
                f"expected a chunk's size line or a trailer of at most {limit} bytes, got {beginning[:40]!r}"
            )
        self._buffer = beginning

    @staticmethod
    def _may_be_size(beginning: bytes) -> bool:
        return _SIZE_LINE.fullmatch(beginning.removesuffix(b"\r")) is not None or beginning in {b"", b"\r"}

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line) if len(line) <= MAX_SIZE_LINE else None
        if match is None:
            raise BodyError(f"expected a chunk size in hexadecimal, got {line[:40]!r}")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailers = (self._trailers or 0) + len(line) + 2
        if self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line):
            raise BodyError(f"expected NAME: VALUE trailers of at most {MAX_TRAILERS} bytes, got {line[:40]!r}")


class UntilClose:
    """A response that ends with its connection; `done` never becomes true here."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done, self.rest = False, b""

    def feed(self, data: bytes) -> bytes:
        """Return *data*."""
        return data


def request_body(framing: Framing) -> Body:
    """Return the body of a request: without a framing there is none."""
    return ChunkedBody() if framing.chunked else LengthBody(framing.length or 0)


def response_body(framing: Framing) -> Body:
    """Return the body of a response that may have one: without a framing it ends with the connection."""
    if framing.chunked:
        return ChunkedBody()
    return UntilClose() if framing.length is None else LengthBody(framing.length)
