"""The pair in use, and its hot reload into listeners and pools that are running.

A listener's own context never changes: its SNI callback hands each new handshake to the newest inner context.  (Live
`load_cert_chain` is not atomic, and with a mismatched pair it breaks the server.)  A pair is tried in a scratch
context before anything uses it.
"""

import datetime as dt
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from renewal.files import write_secret


class PairError(Exception):
    """Key and chain that must not be used: mismatched, malformed, expired, or for other names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its chain, checked."""

    pem: bytes
    names: tuple[str, ...]
    #: Lower-case hexadecimal.
    serial: str
    issuer: str
    #: Seconds since the epoch.
    not_before: float
    not_after: float


def read_pair(pem: bytes, names: Sequence[str], now: float) -> Pair:
    """Check a key and chain in one PEM text.

    Raises:
        PairError: with what was expected and what came.
    """
    try:
        key = load_pem_private_key(pem, None)
        chain = x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError) as error:
        raise PairError(f"expected a private key and a chain in PEM: {error}") from None
    leaf = chain[0]
    if key.public_key() != leaf.public_key():
        raise PairError("expected the key of the certificate, got another")
    covered = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    if missing := sorted(set(names) - set(covered)):
        raise PairError(f"expected a certificate for {', '.join(missing)}, got one for {', '.join(covered)}")
    before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    if not before <= now < after:
        when = f"{_utc(before)} to {_utc(after)}"
        raise PairError(f"expected a certificate that is valid at {_utc(now)}, got one for {when}")
    if len(chain) < 2:
        raise PairError("expected the chain after the certificate, got the certificate alone")
    return Pair(pem, tuple(covered), f"{leaf.serial_number:x}", leaf.issuer.rfc4514_string(), before, after)


def new_pair_pem(key: ec.EllipticCurvePrivateKey, chain: str) -> bytes:
    """Return key and chain in one PEM text: one file, so that no crash leaves a half of a pair."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain.encode()


class Credentials:
    """What a service shows and trusts, now."""

    def __init__(self, file: Path, trust: Path) -> None:
        """Keep the pair in *file* (0600), trust what *trust* (PEM) holds."""
        self.file, self.trust = file, trust
        self._pair: Pair | None = None
        self._listeners: list[tuple[Path | None, ssl.SSLContext]] = []
        self._inner: dict[Path | None, ssl.SSLContext] = {}
        self._client: ssl.SSLContext | None = None
        self._callbacks: list[Callable[[bool], None]] = []

    def __repr__(self) -> str:
        return f"<Credentials {self._pair.serial[:8] if self._pair else 'none'} listeners={len(self._listeners)}>"

    @property
    def pair(self) -> Pair:
        """The pair in use; raise `PairError` before there is one."""
        if self._pair is None:
            raise PairError("there is no certificate yet")
        return self._pair

    @property
    def ready(self) -> bool:
        """Whether there is a pair."""
        return self._pair is not None

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names of the certificate."""
        return self.pair.names

    @property
    def serial(self) -> str:
        """Serial of the certificate, lower-case hexadecimal."""
        return self.pair.serial

    @property
    def not_before(self) -> float:
        """Seconds since the epoch."""
        return self.pair.not_before

    @property
    def not_after(self) -> float:
        """Seconds since the epoch."""
        return self.pair.not_after

    def load(self, names: Sequence[str], now: float) -> float:
        """Use the pair on disk; return when it was written.  Raises `PairError` where it is missing or not good."""
        try:
            pem, written = self.file.read_bytes(), self.file.stat().st_mtime
        except OSError as error:
            raise PairError(f"{self.file}: {error.strerror}") from None
        self._use(read_pair(pem, names, now), naive=False)
        return written

    def replace(self, pem: bytes, names: Sequence[str], now: float, *, naive: bool = False) -> Pair:
        """Check *pem*, write it, and let every new handshake use it.

        Args:
            pem: key and chain.
            names: that the certificate must hold.
            now: seconds since the epoch.
            naive: reload as a restart would, by cutting connections (the negative control of the renewal drill).

        Raises:
            PairError: the pair is not good; the old one goes on serving.
        """
        pair = read_pair(pem, names, now)
        self._context(pair, None)  # OpenSSL takes it, or it raises before anything changed
        write_secret(self.file, pem)
        self._use(pair, naive=naive)
        return pair

    def server_context(self, client_ca: Path | None = None) -> ssl.SSLContext:
        """Return a context for a listener; it follows every renewal.

        Args:
            client_ca: PEM file; when given, clients must show a certificate that it leads to.
        """
        outer = _server_context(client_ca)
        if client_ca not in self._inner:
            self._inner[client_ca] = self._context(self.pair, client_ca)

        def switch(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._inner[client_ca]

        outer.sni_callback = switch
        self._listeners.append((client_ca, outer))
        return outer

    def client_context(self) -> ssl.SSLContext:
        """Return the context for outgoing mTLS connections; another object after each renewal."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self.trust)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._pair is not None:
                context.load_cert_chain(self.file)
            self._client = context
        return self._client

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(naive)`` after each renewal."""
        self._callbacks.append(callback)

    def _use(self, pair: Pair, *, naive: bool) -> None:
        inner = {client_ca: self._context(pair, client_ca) for client_ca in self._inner}
        self._pair, self._inner, self._client = pair, inner, None
        for callback in self._callbacks:
            callback(naive)

    def _context(self, pair: Pair, client_ca: Path | None) -> ssl.SSLContext:
        context = _server_context(client_ca)
        path = self.file.with_name(f".{self.file.name}.try")  # OpenSSL reads files only
        try:
            write_secret(path, pair.pem)
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise PairError(f"OpenSSL does not take this pair: {error}") from None
        finally:
            path.unlink(missing_ok=True)
        return context


def _server_context(client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        # Changing the context in the SNI callback does not change this: it must stand on the outer one too.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
