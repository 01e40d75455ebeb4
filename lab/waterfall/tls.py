"""A TLS client over a blocking socket whose every octet and round trip is counted (RFC 8446, RFC 5246).

OpenSSL works on memory; this carries its records over the socket.
"""

import contextlib
import datetime as dt
import socket
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CHUNK = 65536
#: `_ssl.ENCODING_DER`.
_ENCODING_DER = 2


def context(version: str | None, trust: Path | None) -> ssl.SSLContext:
    """Return a verifying client context, held to one TLS *version* (``1.2``, ``1.3``) or free."""
    made = ssl.create_default_context(cafile=trust)
    made.set_alpn_protocols(["http/1.1"])
    if version is not None:
        made.minimum_version = made.maximum_version = VERSIONS[version]
    return made


class Channel:
    """TLS over *sock*; counts what passes."""

    def __init__(
        self, sock: socket.socket, made: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None
    ) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = made.wrap_bio(self.incoming, self.outgoing, server_hostname=host, session=session)
        self.sent = self.received = self.round_trips = 0
        self._waiting = False

    def handshake(self) -> None:
        """Run the handshake; raises what `ssl` and `socket` raise."""
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def write(self, data: bytes) -> None:
        """Send application data."""
        self.object.write(data)
        self._flush()

    def read(self) -> bytes:
        """Return some application data; nothing at the end."""
        while True:
            try:
                return self.object.read(CHUNK)
            except ssl.SSLWantReadError:
                if not self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    def say_goodbye(self) -> None:
        """Send close_notify without waiting for the other's (RFC 8446 section 6.1)."""
        with contextlib.suppress(ssl.SSLError):  # wants the peer's close_notify: whoever closes reads on
            self.object.unwrap()
        self._flush()

    def _flush(self) -> None:
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)
            self.sent += len(data)
            self._waiting = True

    def _fill(self) -> bool:
        data = self.sock.recv(CHUNK)
        if self._waiting and data:  # the answer to what was sent: one round trip
            self.round_trips += 1
            self._waiting = False
        self.received += len(data)
        if data:
            self.incoming.write(data)
            return True
        self.incoming.write_eof()
        return False


def describe(made: ssl.SSLObject) -> dict[str, Any]:
    """Return version, cipher, resumption and the chain as it was verified."""
    cipher = made.cipher()
    group = getattr(made, "group", None)  # Python 3.15
    return {
        "version": made.version(),
        "cipher": cipher[0] if cipher else None,
        "group": group() if callable(group) else None,
        "alpn": made.selected_alpn_protocol(),
        "resumed": bool(made.session_reused),
        "chain": _chain(made),
    }


def _chain_before_313(made: ssl.SSLObject) -> list[bytes]:
    """Return what `ssl.SSLObject.get_verified_chain` does from Python 3.13 on; the object below has it since 3.10."""
    inner: Any = getattr(made, "_sslobj", None)
    return [each.public_bytes(_ENCODING_DER) for each in inner.get_verified_chain() or ()] if inner else []


def _chain(made: ssl.SSLObject) -> list[dict[str, Any]]:
    verified = getattr(made, "get_verified_chain", None)
    ders: list[bytes] = list(verified()) if verified is not None else _chain_before_313(made)
    if not ders:
        leaf = made.getpeercert(binary_form=True)
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
