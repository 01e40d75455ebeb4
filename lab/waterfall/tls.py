"""TLS client on a blocking socket that counts bytes and round trips (RFC 8446, RFC 5246)."""

import datetime as dt
import socket
import ssl
from typing import Any

from cryptography import x509

from wireformat.tls import TlsConnection

CHUNK = 65536
#: Value of `_ssl.ENCODING_DER`.
_ENCODING_DER = 2


class TlsSocket:
    """TLS connection over the blocking socket *sock*.  Exceptions of `ssl` and `socket` are passed through."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None
    ) -> None:
        self.sock = sock
        self.tls = TlsConnection(context, host, session)
        #: Number of bytes sent and received in TLS records, including record headers.
        self.sent = self.received = 0
        #: Number of times that data was sent and then a response received.
        self.round_trips = 0
        self._waiting = False

    def handshake(self) -> None:
        """Perform the TLS handshake."""
        while not self.tls.handshake():
            self._flush()
            self._fill()
        self._flush()

    def write(self, data: bytes) -> None:
        """Send application data."""
        self.tls.write(data)
        self._flush()

    def read(self) -> bytes:
        """Return the next application data, or b"" at the end of the stream."""
        while (data := self.tls.read()) is None:
            if not self._fill():
                return b""
        return data

    def close_notify(self) -> None:
        """Send close_notify without waiting for the peer's close_notify."""
        self.tls.close()
        self._flush()

    def _flush(self) -> None:
        data = self.tls.to_send()
        if data:
            self.sock.sendall(data)
            self.sent += len(data)
            self._waiting = True

    def _fill(self) -> bool:
        data = self.sock.recv(CHUNK)
        if self._waiting and data:
            self.round_trips += 1
            self._waiting = False
        self.received += len(data)
        if data:
            self.tls.receive(data)
        else:
            self.tls.end()
        return bool(data)


def describe(tls: ssl.SSLObject) -> dict[str, Any]:
    """Return TLS version, cipher, key exchange group, ALPN protocol, resumption flag and verified certificate chain."""
    cipher = tls.cipher()
    group = getattr(tls, "group", None)  # available from Python 3.15
    return {
        "version": tls.version(),
        "cipher": cipher[0] if cipher else None,
        "group": group() if callable(group) else None,
        "alpn": tls.selected_alpn_protocol(),
        "resumed": bool(tls.session_reused),
        "chain": _chain(tls),
    }


def _chain_before_313(tls: ssl.SSLObject) -> list[bytes]:
    """Return the verified chain (DER) on Python before 3.13, where only the private object inside *tls* provides it."""
    inner: Any = getattr(tls, "_sslobj", None)
    return [each.public_bytes(_ENCODING_DER) for each in inner.get_verified_chain() or ()] if inner else []


def _chain(tls: ssl.SSLObject) -> list[dict[str, Any]]:
    verified = getattr(tls, "get_verified_chain", None)
    ders: list[bytes] = list(verified()) if verified is not None else _chain_before_313(tls)
    if not ders:
        leaf = tls.getpeercert(binary_form=True)
        ders = [leaf] if leaf else []
    rows = []
    for der in ders:
        certificate = x509.load_der_x509_certificate(der)
        left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
        rows.append(
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "serial": f"{certificate.serial_number:x}",
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "seconds_left": int(left.total_seconds()),
                "bytes": len(der),
            }
        )
    return rows
