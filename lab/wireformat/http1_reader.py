"""Incremental reader for HTTP/1.1 responses (RFC 9112), based on httptools (llhttp)."""

from collections.abc import Callable
from typing import Any

import httptools

from wireformat.http1 import HttpError

#: Maximum number of fields, and maximum size of a response head in bytes; common clients have similar limits.
MAX_FIELDS, MAX_HEAD = 100, 32 * 1024


class ResponseReader:
    """Reader for one response, which skips preceding interim (1xx) responses. Create one per response."""

    status = 0
    reason = b""
    body_bytes = 0
    head_complete = complete = False
    #: Whether the connection can be used for another request; valid once the response is complete.
    keep_alive = False
    _head_bytes = 0

    def __init__(
        self,
        on_body: Callable[[bytes], None] | None = None,
        on_head: Callable[[], None] | None = None,
        *,
        head_only: bool = False,
    ) -> None:
        """Create a reader for one response.

        Args:
            on_body: called with each part of the body; if None, the body is only counted.
            on_head: called once, when `status` and `fields` are available.
            head_only: whether the request method was HEAD, in which case the response has no body.
        """
        #: Field names and values as received, without trailers.
        self.fields: list[tuple[bytes, bytes]] = []
        self._on_body, self._on_head, self._head_only = on_body, on_head, head_only
        self._parser: Any = httptools.HttpResponseParser(self)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "body" if self.head_complete else "head"
        return f"<ResponseReader {self.status} {state} body={self.body_bytes}>"

    @property
    def version(self) -> str:
        """The response's HTTP version, for example ``1.1``."""
        return str(self._parser.get_http_version())

    def field(self, name: bytes) -> str:
        """Return the value of the first field called *name* (lower case), or an empty string if there is none."""
        return next((value.decode("latin-1") for key, value in self.fields if key.lower() == name), "")

    def feed(self, data: bytes) -> bool:
        """Process received bytes; return whether the response is complete.

        Bytes after the end of the response are discarded and set `keep_alive` to False.

        Raises:
            HttpError: the bytes are not valid HTTP, exceed a limit, or switch protocols.
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
        """Process the end of the connection, which may delimit the body (RFC 9112 section 6.3).

        Raises:
            HttpError: the response is incomplete.
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
