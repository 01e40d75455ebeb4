"""One connection as its protocols see it: TLS, or none, and HTTP/1.1 responses (RFC 8446, RFC 5246, RFC 9112).

Nothing here opens a socket or reads a clock: octets and times go in, octets come out, and the phases of the request
under way are written down.  The event loop (`generator.load`) and Locust's greenlets (`swarm`) both drive it.
"""

import contextlib
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import httptools

from generator.request import LoadError, Request

#: Octets of the largest TLS record (RFC 8446 section 5.1): what one read can give.
RECORD = 16384


class Channel:
    """Carries one request at a time; `request` is None when there is none under way."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        host: str,
        session: ssl.SSLSession | None = None,
        check: Callable[[bytes], str] | None = None,
    ) -> None:
        """Make a channel for a connection that is about to be made.

        Args:
            context: a verifying context; None speaks plain HTTP.
            host: name that the certificate must bear.
            session: an earlier session of the same context, to be resumed.
            check: told each body, returns why it is wrong, or nothing.
        """
        self.request: Request | None = None
        self.tls: ssl.SSLObject | None = None
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._in, self._out, server_hostname=host, session=session)
        self._check = check
        self._secure = context is None
        self._serial = self._version = ""
        self._resumed = False
        self._text = b""
        self._asked = 0
        self._since = 0.0
        self._asking = False
        self._began_reading = False
        self._headed = False
        self._delimited = False
        self._body: list[bytes] = []
        self._keep_alive = True
        self._ended = self._said_goodbye = False
        self._parser: Any = httptools.HttpResponseParser(self)

    def __repr__(self) -> str:
        state = "handshake" if not self._secure else "idle" if self.request is None else "waiting"
        return f"<Channel {self._version or 'plain'} {state}>"

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self.request is None and self._secure and self._keep_alive

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session, once the server gave one that can be resumed."""
        session = self.tls.session if self.tls is not None else None
        if session is None or not (session.has_ticket or (self._version == "1.2" and session.id)):
            return None
        return session

    @property
    def phase(self) -> str:
        """The phase that the request under way is in."""
        return "tls" if not self._secure else "receive" if self._began_reading else "first_byte"

    def ask(self, request: Request, text: bytes, now: float) -> bytes:
        """Begin *request*, whose octets are *text*, on a connection that is up; return the octets to send.

        Raises:
            LoadError: TLS would not start.
        """
        self.request, self._text, self._since = request, text, now
        request.reused = self._asked > 0
        self._asked += 1
        self._began_reading = self._headed = self._delimited = self._ended = False
        self._asking = True
        if self.tls is None or self._secure:
            return self._send_request(request, now)
        return self._handshake(self.tls)

    def receive(self, data: bytes, now: float) -> bytes:
        """Take octets that arrived at *now*; return the octets to send.

        The request under way is done when `request` is None afterwards.  A handshake that is done makes `ready` true.

        Raises:
            LoadError: the handshake failed, the chain is not trusted, or this is no HTTP; `farewell` is to be sent.
        """
        request = self.request
        if request is not None:
            request.bytes_received += len(data)
        if self.tls is None:
            self._feed(data, now)
            return b""
        self._in.write(data)
        reply = b""
        if not self._secure:
            reply = self._handshake(self.tls)
        if self._secure and self._in.pending:
            reply += self._read(self.tls, now)
        return reply

    @property
    def ready(self) -> bool:
        """Whether the handshake is done and the request still to be sent: `proceed` does."""
        return self._secure and self.request is not None and self._asking

    def proceed(self, now: float) -> bytes:
        """End the handshake at *now*, proofs checked, and return the octets of the request.

        Raises:
            LoadError: TLS would not take them.
        """
        if self.request is None:
            return b""
        self.request.tls = now - self._since
        return self._send_request(self.request, now)

    def end(self, now: float) -> None:
        """Take the end of the peer's octets.

        Raises:
            LoadError: a request was under way and its response is not whole.
        """
        self._keep_alive = False
        if self.request is None:
            return
        if self._headed and not self._delimited:  # the body ends with the connection (RFC 9112 section 6.3)
            self._complete()
            self._finish(self.request, now)
            return
        raise LoadError("truncated" if self._began_reading else "closed")

    def farewell(self) -> bytes:
        """Return what is to be sent before closing: close_notify, or the alert of a handshake that failed."""
        if self.tls is None:
            return b""
        if self._secure and not self._said_goodbye:
            self._said_goodbye = True
            with contextlib.suppress(ssl.SSLError):  # it wants the peer's close_notify too; we do not wait
                self.tls.unwrap()
        return self._out.read()

    # --- TLS ----------------------------------------------------------------------------------------------------------
    def _handshake(self, tls: ssl.SSLObject) -> bytes:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing()
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        self._secure = True
        self._version = {"TLSv1.2": "1.2", "TLSv1.3": "1.3"}.get(tls.version() or "", "other")
        self._resumed = bool(tls.session_reused)
        self._serial = _serial(tls)
        return self._outgoing()

    def _send_request(self, request: Request, now: float) -> bytes:
        self._since, self._asking = now, False
        if self.tls is None:
            request.bytes_sent += len(self._text)
            return self._text
        request.serial, request.version, request.resumed = self._serial, self._version, self._resumed
        try:
            self.tls.write(self._text)
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        return self._outgoing()

    def _outgoing(self) -> bytes:
        data = self._out.read()
        if self.request is not None:
            self.request.bytes_sent += len(data)
        return data

    def _read(self, tls: ssl.SSLObject, now: float) -> bytes:
        try:
            while True:
                data = tls.read(RECORD)
                if not data:  # close_notify: ours goes back, or the peer waits for it before its FIN
                    self._keep_alive = False
                    return self._outgoing() + self.farewell()
                self._feed(data, now)
                if self.request is None and not self._in.pending:
                    break  # spares the read that would only say that there is no more
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        return self._outgoing()

    # --- HTTP ---------------------------------------------------------------------------------------------------------
    def _feed(self, data: bytes, now: float) -> None:
        request = self.request
        if request is None:
            self._keep_alive = False  # nobody asked for this
            return
        if not self._began_reading:
            self._began_reading = True
            request.first_byte = now - self._since
            self._since = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise LoadError("malformed") from None
        if self._ended:
            self._finish(request, now)

    def _finish(self, request: Request, now: float) -> None:
        request.receive = now - self._since
        request.done = now
        if not 200 <= request.status < 300:
            request.error = f"status {request.status}"
        elif self._check is not None:
            request.error = self._check(b"".join(self._body))
        if request.error:
            request.failed_in = "receive"
        self._body.clear()
        self.request = None

    def _complete(self) -> None:
        if self.request is not None:
            self.request.status = self._parser.get_status_code()
        self._keep_alive = self._keep_alive and self._parser.should_keep_alive()
        self._ended = True

    def on_header(self, name: bytes, _: bytes) -> None:
        if len(name) in {14, 17} and name.lower() in {b"content-length", b"transfer-encoding"}:
            self._delimited = True

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_body(self, data: bytes) -> None:
        if self.request is not None:
            self.request.body_bytes += len(data)
        if self._check is not None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # an interim response is followed by the one that counts
            self._complete()


def _cause(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    return f"tls: {error.reason or type(error).__name__}"


def _serial(tls: ssl.SSLObject) -> str:
    der = tls.getpeercert(binary_form=True)
    return _serial_of(der) if der else ""


@lru_cache(maxsize=1024)
def _serial_of(der: bytes) -> str:
    """Return the serial number of a certificate in hexadecimal.

    It is the first INTEGER of the TBSCertificate after the version (RFC 5280 section 4.1).
    """
    tbs = _content(der, _content(der, 0)[0])[0]
    start, end = _content(der, tbs)
    if der[tbs] == 0xA0:
        start, end = _content(der, end)
    return f"{int.from_bytes(der[start:end], 'big'):x}"


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at *at* begins and ends (X.690 section 8.1)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    return start, start + length
