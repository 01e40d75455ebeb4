"""The protocol state of one client connection: HTTP/1.1 with or without TLS (RFC 9112, RFC 8446, RFC 5246).

A channel has no socket: its owner passes received bytes and times, and sends the bytes that the channel returns.  The
channel records the phases of the current request.  It is used on the event loop (`generator.connection`) and in
Locust's greenlets (`swarm`).
"""

import ssl
from collections.abc import Callable
from functools import lru_cache

from cryptography import x509

from generator.request import LoadError, Request
from wireformat.http1 import HttpError
from wireformat.http1_reader import ResponseReader
from wireformat.tls import TlsConnection


class Channel:
    """Protocol state of one connection, with one request at a time; `request` is None when the connection is idle."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        host: str,
        session: ssl.SSLSession | None = None,
        check: Callable[[bytes], str] | None = None,
    ) -> None:
        """Create a channel for a new connection.

        Args:
            context: TLS context that verifies certificate chains; None: plain HTTP.
            host: host name for which the server's certificate must be valid.
            session: TLS session to resume, created by the same context; None: full handshake.
            check: called with each response body; returns a description of the defect, or "" if the body is correct.
        """
        self.request: Request | None = None
        self._tls = TlsConnection(context, host, session) if context is not None else None
        self._check = check
        self._serial = self._version = ""
        self._text = b""
        self._asked = 0
        #: Start of the current phase, in seconds on the load's clock.
        self._since = 0.0
        #: Whether the request has not been sent yet, and whether the first byte of its response has arrived.
        self._unsent = self._began_reading = False
        self._response = ResponseReader()
        self._body: list[bytes] = []
        self._keep_alive = True

    def __repr__(self) -> str:
        state = "handshake" if not self._up else "idle" if self.request is None else "waiting"
        return f"<Channel {self._version or 'plain'} {state}>"

    @property
    def _up(self) -> bool:
        return self._tls is None or self._tls.established

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent on this connection."""
        return self.request is None and self._up and self._keep_alive

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session for resumption; None until the server has sent one."""
        return self._tls.session if self._tls is not None else None

    @property
    def phase(self) -> str:
        """The current phase of the current request: tls, first_byte or receive."""
        return "tls" if not self._up else "receive" if self._began_reading else "first_byte"

    def ask(self, request: Request, text: bytes, now: float) -> bytes:
        """Start *request*, encoded as *text*, after the TCP connection is established; return the bytes to send.

        Raises:
            LoadError: the TLS handshake could not be started.
        """
        self.request, self._text, self._since = request, text, now
        request.reused = self._asked > 0
        self._asked += 1
        self._began_reading, self._unsent = False, True
        self._response = ResponseReader(self._body.append if self._check is not None else None)
        if self._tls is None or self._tls.established:
            return self._send_request(request, now)
        return self._handshake(self._tls)

    def receive(self, data: bytes, now: float) -> bytes:
        """Process bytes that arrived at *now*; return the bytes to send.

        Afterwards, `request` is None if the response is complete, and `ready` is true if the handshake is complete.

        Raises:
            LoadError: TLS failed, the certificate chain is not trusted, or the response is not valid HTTP.  The caller
                should send `close_notify` and close the connection.
        """
        if self.request is not None:
            self.request.bytes_received += len(data)
        if self._tls is None:
            self._feed(data, now)
            return b""
        self._tls.receive(data)
        reply = b"" if self._tls.established else self._handshake(self._tls)
        if self._tls.established and self._tls.pending:
            reply += self._read(self._tls, now)
        return reply

    @property
    def ready(self) -> bool:
        """Whether the handshake is complete and `proceed` should send the request."""
        return self._unsent and self._up and self.request is not None

    def proceed(self, now: float) -> bytes:
        """End the TLS phase at *now*, after the certificate chain was verified; return the encrypted request to send.

        Raises:
            LoadError: the request could not be encrypted.
        """
        if self.request is None:
            return b""
        self.request.tls = now - self._since
        return self._send_request(self.request, now)

    def end(self, now: float) -> None:
        """Process the end of the received stream at the time *now*.

        Raises:
            LoadError: the response to the current request is incomplete.
        """
        self._keep_alive = False
        if self.request is None:
            return
        try:
            self._response.end()
        except HttpError:
            raise LoadError("truncated" if self._began_reading else "closed") from None
        self._finish(self.request, now)

    def close_notify(self) -> bytes:
        """Return the bytes to send before closing: a close_notify alert, or the alert of a failed handshake."""
        if self._tls is None:
            return b""
        self._tls.close()
        return self._tls.to_send()

    # --- TLS ----------------------------------------------------------------------------------------------------------
    def _handshake(self, tls: TlsConnection) -> bytes:
        try:
            if tls.handshake():
                self._version = {"TLSv1.2": "1.2", "TLSv1.3": "1.3"}.get(tls.object.version() or "", "other")
                self._serial = _serial(tls.object.getpeercert(binary_form=True) or b"")
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        return self._outgoing(tls)

    def _send_request(self, request: Request, now: float) -> bytes:
        self._since, self._unsent = now, False
        if self._tls is None:
            request.bytes_sent += len(self._text)
            return self._text
        request.serial, request.version = self._serial, self._version
        request.resumed = bool(self._tls.object.session_reused)
        try:
            self._tls.write(self._text)
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        return self._outgoing(self._tls)

    def _outgoing(self, tls: TlsConnection) -> bytes:
        data = tls.to_send()
        if self.request is not None:
            self.request.bytes_sent += len(data)
        return data

    def _read(self, tls: TlsConnection, now: float) -> bytes:
        try:
            while (data := tls.read()) is not None:
                if not data:  # close_notify: reply in kind, since the peer may wait for the reply before it sends FIN
                    self._keep_alive = False
                    return self._outgoing(tls) + self.close_notify()
                self._feed(data, now)
                if self.request is None and not tls.pending:
                    break  # avoid a read that would return no data
        except ssl.SSLError as error:
            raise LoadError(_cause(error)) from None
        return self._outgoing(tls)

    # --- HTTP ---------------------------------------------------------------------------------------------------------
    def _feed(self, data: bytes, now: float) -> None:
        request = self.request
        if request is None:
            self._keep_alive = False  # unsolicited data from the server
            return
        if not self._began_reading:
            self._began_reading = True
            request.first_byte = now - self._since
            self._since = now
        try:
            complete = self._response.feed(data)
        except HttpError:
            raise LoadError("malformed") from None
        request.body_bytes = self._response.body_bytes
        if complete:
            self._keep_alive = self._keep_alive and self._response.keep_alive
            self._finish(request, now)

    def _finish(self, request: Request, now: float) -> None:
        request.receive = now - self._since
        request.done = now
        request.status = self._response.status
        if not 200 <= request.status < 300:
            request.error = f"status {request.status}"
        elif self._check is not None:
            request.error = self._check(b"".join(self._body))
        if request.error:
            request.failed_in = "receive"
        self._body.clear()
        self.request = None


def _cause(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    return f"tls: {error.reason or type(error).__name__}"


@lru_cache(maxsize=1024)
def _serial(der: bytes) -> str:
    """Return the serial number of a certificate in hexadecimal."""
    return f"{x509.load_der_x509_certificate(der).serial_number:x}" if der else ""
