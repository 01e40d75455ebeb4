"""Reads HTTP/1.1 responses piece by piece (RFC 9112); httptools (llhttp) parses them."""

from collections.abc import Callable
from typing import Any

import httptools

from wireformat.http1 import HttpError

#: Fields of one response, and bytes of all of them: what common clients accept.
MAX_FIELDS, MAX_HEADER = 100, 32 * 1024


class ResponseReader:
    """Reads one response and skips interim ones (1xx) before it.  Make a new reader for each response."""

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
        self.status = 0
        self.reason = b""
        #: Names in lower case, and values; trailers are left out.
        self.fields: list[tuple[bytes, bytes]] = []
        self.body_bytes = 0
        self.head_complete = self.complete = False
        #: Whether another request may follow on this connection; meaningful once the response is complete.
        self.keep_alive = False
        self._on_body, self._on_head, self._head_only = on_body, on_head, head_only
        self._until_close = False
        self._header_bytes = self._field_count = 0
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
        return next((value.decode("latin-1") for key, value in self.fields if key == name), "")

    def feed(self, data: bytes) -> bool:
        """Take bytes that arrived; return whether the response is complete.

        Bytes after the end of the response belong to none; they make `keep_alive` false.

        Raises:
            HttpError: they are not HTTP, exceed a bound, or switch protocols.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise HttpError("the peer wants to switch protocols") from None
        except httptools.HttpParserError as error:
            if not self.complete:
                raise HttpError(f"expected an HTTP response: {error.__context__ or error}") from None
            self.keep_alive = False
        return self.complete

    def end(self) -> None:
        """Take the end of the peer's bytes, which may delimit the body (RFC 9112 section 6.3).

        Raises:
            HttpError: the response is not complete.
        """
        self.complete = self.complete or self._until_close
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
        self._header_bytes += len(name) + len(value) + 4
        self._field_count += 1
        if self._header_bytes > MAX_HEADER or self._field_count > MAX_FIELDS:
            raise HttpError(f"more than {MAX_FIELDS} fields or {MAX_HEADER} bytes of them")
        if not self.head_complete:
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete:
            return
        if status < 200:
            self.fields, self.reason = [], b""
            self._header_bytes = self._field_count = 0
            return
        self.status, self.head_complete = status, True
        bodiless = self._head_only or status in {204, 304}
        names = {name for name, _ in self.fields}
        self._until_close = not bodiless and not names & {b"content-length", b"transfer-encoding"}
        if self._on_head is not None:
            self._on_head()
        if bodiless:
            self._finish()

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.keep_alive = False
            return
        self.body_bytes += len(data)
        if self._on_body is not None:
            self._on_body(data)

    def on_message_complete(self) -> None:
        if self.head_complete and not self.complete and not self._until_close:
            self._finish()

    def _finish(self) -> None:
        self.complete = True
        self.keep_alive = bool(self._parser.should_keep_alive())
