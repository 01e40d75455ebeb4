"""A service's certificate, and its hot reload into running listeners and connection pools.

A *pair* is a private key with its certificate chain.  A listener's context never changes: its SNI callback gives each
new handshake the newest inner context.  (`load_cert_chain` on a live context is not atomic, and a mismatched pair
breaks the server.)  A new pair is validated and tested with handshakes in memory before it is used.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from hostfiles.atomic import atomic_write
from renewal.errors import PairError
from renewal.material import Pair, covered_host, read_pair
from renewal.proof import load_pair, prove
from telemetry import log

logger = log.get("renewal")

#: Permissions of the file with the private key.
MODE = 0o600

#: First line of a trust bundle of version 2 or later; PEM parsers ignore this line.
TRUST_VERSION = re.compile(rb"# trust bundle (\d{1,9})\n")

#: Cipher suites for TLS 1.2: those with forward secrecy and authenticated encryption (RFC 9325 section 4.2).
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Reload:
    """How listeners apply a new key and certificate chain."""

    #: Whether listeners close all connections and stop listening for `down_s` seconds, as a restart would.
    restart: bool = False
    #: Duration of the period in which listeners do not listen, in seconds.
    down_s: float = 0.0


#: Configuration of a listener's TLS contexts: file of the roots for client certificates (None: no client certificates),
#: and ALPN protocols (RFC 7301).
Kind = tuple[Path | None, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class Listener:
    """The TLS context of a listener; its SNI callback switches each handshake to another context."""

    kind: Kind
    outer: ssl.SSLContext
    #: Whether a naive reload, the negative control of a drill, has loaded a certificate into the outer context itself.
    live: bool = False


class Credentials:
    """The key and certificate chain that a service presents, and the root certificates that it trusts."""

    def __init__(self, file: Path, trust: Path, *, as_client: bool = True) -> None:
        """Create credentials without a certificate; then call `load` or `replace`.

        Args:
            file: PEM file for the private key and the chain, written with mode 0600.
            trust: PEM file with the trusted roots.
            as_client: whether the service also presents the certificate to servers that require one.
        """
        self.file, self.trust, self._as_client = file, trust, as_client
        #: Error of the last attempt to write the pair in use to `file`; empty if it succeeded.
        self.unsaved = ""
        self._pair: Pair | None = None
        self._listeners: list[Listener] = []
        self._inner: dict[Kind, ssl.SSLContext] = {}
        self._others: list[Credentials] = []
        self._client: ssl.SSLContext | None = None
        self._callbacks: list[Callable[[Reload], None]] = []
        self._roots = self._read_roots()

    def __repr__(self) -> str:
        return f"<Credentials {self._pair.serial[:8] if self._pair else 'none'} listeners={len(self._listeners)}>"

    @property
    def pair(self) -> Pair:
        """The private key and chain in use; raise `PairError` if no certificate has been loaded yet."""
        if self._pair is None:
            raise PairError("there is no certificate yet")
        return self._pair

    @property
    def ready(self) -> bool:
        """Whether a certificate has been loaded."""
        return self._pair is not None

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names in the certificate."""
        return self.pair.names

    @property
    def serial(self) -> str:
        """Serial number of the certificate, in lower-case hexadecimal."""
        return self.pair.serial

    @property
    def not_before(self) -> float:
        """Start of the certificate's validity, in seconds since the epoch."""
        return self.pair.not_before

    @property
    def not_after(self) -> float:
        """Expiry of the certificate, in seconds since the epoch."""
        return self.pair.not_after

    def load(self, names: Sequence[str], now: float) -> float:
        """Load the key and chain from `file`; correct its permissions if others may read it.

        Args:
            names: DNS names that the certificate must have.
            now: current time, in seconds since the epoch.

        Returns:
            Modification time of the file, in seconds since the epoch.

        Raises:
            PairError: the file is missing or its content is invalid.
        """
        try:
            status = self.file.stat()
            if status.st_mode & 0o777 & ~MODE:
                logger.warning("private_key_was_readable", path=str(self.file), mode=f"{status.st_mode & 0o777:o}")
                self.file.chmod(MODE)
            pem = self.file.read_bytes()
        except OSError as error:
            raise PairError(f"{self.file}: {error.strerror}") from None
        self._use(self._proved(pem, names, now), Reload())
        return status.st_mtime

    def stamp(self) -> tuple[int, int] | None:
        """Return modification time and inode of the file, which identify its version; None if the file is missing."""
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def replace(self, pem: bytes, names: Sequence[str], now: float, reload: Reload | None = None) -> Pair:
        """Validate *pem*, test it with handshakes in memory, write it to `file`, and use it for every new handshake.

        If writing fails, the pair is used from memory, and `unsaved` states the error.

        Args:
            pem: private key and chain, in PEM.
            names: DNS names that the certificate must have.
            now: current time, in seconds since the epoch.
            reload: passed to the callbacks of `on_change`; None means a reload without a restart.

        Raises:
            PairError: the new key or chain is invalid; the old one stays in use.
        """
        pair = self._proved(pem, names, now)
        self._use(pair, reload or Reload())
        self.save()
        return pair

    def save(self) -> bool:
        """Write the pair in use to `file` and set `unsaved`; return whether writing succeeded."""
        try:
            atomic_write(self.file, self.pair.pem, MODE)
        except OSError as error:
            self.unsaved = f"{self.file}: {error.strerror or error}"
            logger.error("pair_not_stored", error=self.unsaved)
            return False
        self.unsaved = ""
        return True

    def server_context(self, client_ca: Path | None = None, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """Return a TLS context for a listener that always presents the newest certificate.

        The context may be created before the first certificate exists.  Processes forked after its creation share its
        ticket key, so that they can resume each other's sessions.

        Args:
            client_ca: PEM file with roots; if given, clients must present a certificate that chains to one of them.
            alpn: ALPN protocols in order of preference.
        """
        kind = (client_ca, alpn)
        listener = Listener(kind, _server_context(kind))
        if self.ready:
            self.newest(kind)

        def switch(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
            if (context := self.choose(listener, name)) is not None:
                connection.context = context

        listener.outer.sni_callback = switch
        self._listeners.append(listener)
        return listener.outer

    def choose(self, listener: Listener, name: str | None) -> ssl.SSLContext | None:
        """Return the context for a client of *listener* whose SNI is *name*; None means the listener's own context."""
        return self.owner(name).newest(listener.kind)

    def owner(self, name: str | None) -> "Credentials":
        """Return the credentials with the certificate for the SNI *name*."""
        return next((each for each in self._others if each.ready and name in each.names), self)

    def newest(self, kind: Kind) -> ssl.SSLContext:
        """Return the (cached) inner context of *kind* with the pair in use."""
        if kind not in self._inner:
            self._inner[kind] = self.context(self.pair.pem, kind)
        return self._inner[kind]

    def context(self, pem: bytes, kind: Kind) -> ssl.SSLContext:
        """Return a new server context with the key and chain in *pem*."""
        context = _server_context(kind)
        load_pair(context, pem)
        return context

    def add(self, other: "Credentials") -> None:
        """Present the certificate of *other* to clients whose SNI is a name in that certificate (RFC 6066 section 3).

        Until *other* has a certificate, these clients receive this object's certificate.
        """
        self._others.append(other)

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context for outgoing mTLS connections; each renewal creates a new one."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self.trust)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._pair is not None:
                load_pair(context, self._pair.pem)
            self._client = context
        return self._client

    def on_change(self, callback: Callable[[Reload], None]) -> None:
        """Call *callback* each time a new certificate comes into use or the trusted roots change."""
        self._callbacks.append(callback)

    def follow_trust(self) -> bool:
        """Load the trusted roots again if their file has changed; return whether new roots are in use.

        If the file is invalid, the old roots stay in use.
        """
        roots = self._read_roots()
        if roots == self._roots or not self.ready:
            return False
        try:
            self._anchors()
            self._use(self.pair, Reload())
        except (PairError, OSError) as error:
            logger.error("trust_not_usable", error=str(error))
            return False
        self._roots = roots
        logger.info("trust_changed", path=str(self.trust))
        return True

    @property
    def trust_version(self) -> int:
        """Version of the trust bundle in use; a rotation of the root increases this version."""
        header = TRUST_VERSION.match(self._roots or b"")
        return int(header[1]) if header else 1

    def _use(self, pair: Pair, reload: Reload) -> None:
        kinds = {*self._inner, *(listener.kind for listener in self._listeners)}
        inner = {kind: self.context(pair.pem, kind) for kind in kinds}
        self._pair, self._inner, self._client = pair, inner, None
        for callback in self._callbacks:
            callback(reload)

    def _proved(self, pem: bytes, names: Sequence[str], now: float) -> Pair:
        anchors, text = self._anchors()
        pair = read_pair(pem, names, now, anchors)
        prove(pem, covered_host(names[0]), text, as_client=self._as_client)
        return pair

    def _anchors(self) -> tuple[list[x509.Certificate], str]:
        """Return the trusted roots, parsed and in PEM."""
        try:
            text = self.trust.read_text(encoding="ascii")
            return x509.load_pem_x509_certificates(text.encode()), text
        except (OSError, ValueError) as error:
            raise PairError(f"{self.trust}: expected trust anchors in PEM: {error}") from None

    def _read_roots(self) -> bytes | None:
        try:
            return self.trust.read_bytes()
        except OSError:
            return None


def _server_context(kind: Kind) -> ssl.SSLContext:
    client_ca, alpn = kind
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        # Client verification is not switched with the context in the SNI callback, so the outer context needs it, too.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context
