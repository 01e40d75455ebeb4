"""A TLS client on a blocking socket that counts bytes and round trips (RFC 8446, RFC 5246)."""

import datetime as dt
import socket
import ssl
from typing import Any

from cryptography import x509

from wireformat.tls import TlsConnection

CHUNK = 65536
#: `_ssl.ENCODING_DER`.
_ENCODING_DER = 2


class TlsSocket:
    """TLS over *sock*.  Every method raises what `ssl` and `socket` raise."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None
    ) -> None:
        self.sock = sock
        self.tls = TlsConnection(context, host, session)
        #: Bytes of TLS records.
        self.sent = self.received = 0
        #: How often something was sent and then answered.
        self.round_trips = 0
        self._waiting = False

    def handshake(self) -> None:
        """Run the handshake."""
        while not self.tls.handshake():
            self._flush()
            self._fill()
        self._flush()

    def write(self, data: bytes) -> None:
        """Send application data."""
        self.tls.write(data)
        self._flush()

    def read(self) -> bytes:
        """Return some application data; empty at the end."""
        while (data := self.tls.read()) is None:
            if not self._fill():
                return b""
        return data

    def close_notify(self) -> None:
        """Send close_notify without waiting for the peer's."""
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
    """Return version, cipher, group, ALPN, whether the session was resumed, and the verified chain."""
    cipher = tls.cipher()
    group = getattr(tls, "group", None)  # Python 3.15
    return {
        "version": tls.version(),
        "cipher": cipher[0] if cipher else None,
        "group": group() if callable(group) else None,
        "alpn": tls.selected_alpn_protocol(),
        "resumed": bool(tls.session_reused),
        "chain": _chain(tls),
    }


def _chain_before_313(tls: ssl.SSLObject) -> list[bytes]:
    """Do what `ssl.SSLObject.get_verified_chain` does from Python 3.13 on; the inner object has it since 3.10."""
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
