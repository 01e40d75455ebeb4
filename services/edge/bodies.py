"""Incremental decoders for message bodies (RFC 9112 sections 6 and 7): Content-Length, chunked, or until close.

`feed` accepts bytes as they arrive and returns the payload in them. `done` is true when the body is complete; `rest`
then holds the bytes after it.
"""

import re
from typing import Protocol

from edge.heads import Framing

#: Maximum length of a chunk-size line and of all trailers together, in bytes; common servers have similar limits.
MAX_SIZE_LINE, MAX_TRAILERS = 1024, 8192
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class BodyError(ValueError):
    """The body does not match the framing in its message head."""


class Body(Protocol):
    """Decoder for the body of one message."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Return the decoded payload in *data*.

        Raises:
            BodyError: *data* is malformed.
        """


class LengthBody:
    """Decoder for a body with Content-Length."""

    __slots__ = ("_left", "done", "rest")

    def __init__(self, length: int) -> None:
        self._left, self.done, self.rest = length, length == 0, b""

    def feed(self, data: bytes) -> bytes:
        """Return the part of *data* that belongs to the body."""
        if len(data) >= self._left:
            data, self.rest = data[: self._left], data[self._left :]
            self.done = True
        self._left -= len(data)
        return data


class ChunkedBody:
    """Decoder for a chunked body; trailers are validated and discarded, since they could contradict the head."""

    __slots__ = ("_buffer", "_left", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self.done, self.rest = False, b""
        self._buffer = b""
        #: Bytes missing from the current chunk, including its CRLF; 0 between chunks.
        self._left = 0
        #: Size of the trailers received so far, in bytes; None before the last chunk.
        self._trailers: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the decoded payload in *data*.

        Raises:
            BodyError: a chunk or trailer is malformed.
        """
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
        """Append the current chunk's bytes in *data* to *payload*; return the index of the first unused byte."""
        taken = data[at : at + self._left]
        self._left -= len(taken)
        if self._left >= 2:
            payload.append(taken)
        else:  # part of the CRLF after the chunk has arrived
            ending = min(2 - self._left, len(taken))
            content, crlf = taken[: len(taken) - ending], taken[len(taken) - ending :]
            if crlf != b"\r\n"[2 - self._left - ending : 2 - self._left]:
                raise BodyError(f"expected CRLF after a chunk, got {crlf!r}")
            payload.append(content)
        return at + len(taken)

    def _keep(self, beginning: bytes) -> None:
        """Buffer an incomplete line; reject it if it is already too long or malformed."""
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
    """Decoder for a response body that ends when the connection closes; `done` is always false."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done, self.rest = False, b""

    def feed(self, data: bytes) -> bytes:
        """Return *data* unchanged."""
        return data


def request_body(framing: Framing) -> Body:
    """Return the decoder for a request body; without Content-Length or chunked encoding, the body is empty."""
    return ChunkedBody() if framing.chunked else LengthBody(framing.length or 0)


def response_body(framing: Framing) -> Body:
    """Return the decoder for a response body; without Content-Length or chunked encoding, it ends at close."""
    if framing.chunked:
        return ChunkedBody()
    return UntilClose() if framing.length is None else LengthBody(framing.length)
