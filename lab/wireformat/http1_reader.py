"""Reads HTTP/1.1 responses piece by piece (RFC 9112); httptools (llhttp) parses them."""

from collections.abc import Callable
from typing import Any

import httptools

from wireformat.http1 import HttpError

#: Fields of one response, and bytes after which its head must be complete: what common clients accept.
MAX_FIELDS, MAX_HEAD = 100, 32 * 1024


class ResponseReader:
    """Reads one response and skips interim ones (1xx) before it.  Make a new reader for each response."""

    status = 0
    reason = b""
    body_bytes = 0
    head_complete = complete = False
    #: Whether another request may follow on this connection; meaningful once the response is complete.
    keep_alive = False
    _head_bytes = 0

    def __init__(
        self,
        on_body: Callable[[bytes], None] | None = None,
        on_head: Callable[[], None] | None = None,
        *,
        head_only: bool = False,
    ) -> None:
        """Start reading a response.

        Args:
            on_body: called with each piece of the body; without it the body is only counted.
            on_head: called once, when `status` and `fields` are known.
            head_only: whether the request was HEAD, so that no body follows.
        """
        #: Names and values as received; trailers are left out.
        self.fields: list[tuple[bytes, bytes]] = []
        self._on_body, self._on_head, self._head_only = on_body, on_head, head_only
        self._parser: Any = httptools.HttpResponseParser(self)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "body" if self.head_complete else "head"
        return f"<ResponseReader {self.status} {state} body={self.body_bytes}>"

    @property
    def version(self) -> str:
        """The peer's HTTP version, for example ``1.1``."""
        return str(self._parser.get_http_version())

    def field(self, name: bytes) -> str:
        """Return the value of the first field called *name* (lower case), or an empty string."""
        return next((value.decode("latin-1") for key, value in self.fields if key.lower() == name), "")

    def feed(self, data: bytes) -> bool:
        """Take bytes that arrived; return whether the response is complete.

        Bytes after the end of the response belong to none; they make `keep_alive` false.

        Raises:
            HttpError: they are not HTTP, exceed a bound, or switch protocols.
        """
        if not self.head_complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise HttpError("the peer wants to switch protocols") from None
        except httptools.HttpParserError as error:
            if not self.complete:
                raise HttpError(f"expected an HTTP response: {error.__context__ or error}") from None
            self.keep_alive = False
        if not self.head_complete and self._head_bytes > MAX_HEAD:
            raise HttpError(f"expected an HTTP response with a head of at most {MAX_HEAD} bytes")
        return self.complete

    def end(self) -> None:
        """Take the end of the peer's bytes, which may delimit the body (RFC 9112 section 6.3).

        Raises:
            HttpError: the response is not complete.
        """
        lengths = {b"content-length", b"transfer-encoding"}
        self.complete = self.complete or (
            self.head_complete and not any(name.lower() in lengths for name, _ in self.fields)
        )
        self.keep_alive = False
        if not self.complete:
            raise HttpError("the connection closed before the response was complete")

    # --- called by httptools ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self.keep_alive = False

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        if len(self.fields) > MAX_FIELDS:
            raise HttpError(f"more than {MAX_FIELDS} fields")
        status = self._parser.get_status_code()
        if status < 200:
            self.fields, self.reason = [], b""
            return
        self.status, self.head_complete = status, True
        if self._on_head is not None:
            self._on_head()
        if self._head_only or status in {204, 304}:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.keep_alive = False
            return
        self.body_bytes += len(data)
        if self._on_body is not None:
            self._on_body(data)

    def on_message_complete(self) -> None:
        if self.head_complete and not self.complete:
            self.complete = True
            self.keep_alive = bool(self._parser.should_keep_alive())
