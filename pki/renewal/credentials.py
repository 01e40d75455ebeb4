"""A service's certificate, and its hot reload into running listeners and connection pools.

A *pair* is a private key with its certificate chain.  A listener's context never changes: its SNI callback gives each
new handshake the newest inner context.  (`load_cert_chain` on a live context is not atomic, and a mismatched pair
breaks the server.)  A new pair is validated and loaded into a scratch context before it is used.

`replace_naively` implements the drills' negative control, which omits all of these precautions on purpose.
"""

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from hostfiles.atomic import atomic_write
from renewal.material import Pair, PairError, padding_certificate, read_pair


@dataclass(frozen=True, slots=True)
class Reload:
    """How listeners apply a new key and certificate chain."""

    #: Whether listeners close all connections and stop listening for `down_s` seconds, as a restart would.
    restart: bool = False
    down_s: float = 0.0


#: Configuration of a listener's TLS contexts: file of the roots for client certificates (None: no client certificates),
#: and ALPN protocols (RFC 7301).
Kind = tuple[Path | None, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class _Listener:
    kind: Kind
    outer: ssl.SSLContext
    #: Whether a naive reload has loaded a certificate into the outer context itself.
    live: bool = False


class Credentials:
    """The key and certificate chain that a service presents, and the root certificates that it trusts."""

    def __init__(
        self,
        file: Path,
        trust: Path,
        *,
        naive: Callable[[], bool] = lambda: False,
        padding: Callable[[str | None], int] = lambda _: 0,
    ) -> None:
        """Create credentials without a certificate; then call `load` or `replace`.

        Args:
            file: PEM file for the private key and the chain, written with mode 0600.
            trust: PEM file with the trusted roots.
            naive: returns whether the effects of `replace_naively` should last.
            padding: maps the client's SNI host name to the padding that is added to the chain, in bytes.
        """
        self.file, self.trust = file, trust
        self._naive, self._padding = naive, padding
        self._pair: Pair | None = None
        self._listeners: list[_Listener] = []
        self._inner: dict[Kind, ssl.SSLContext] = {}
        self._padded: dict[tuple[Kind, int], ssl.SSLContext] = {}
        self._others: list[Credentials] = []
        self._client: ssl.SSLContext | None = None
        self._callbacks: list[Callable[[Reload], None]] = []

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
        """End of the certificate's validity, in seconds since the epoch."""
        return self.pair.not_after

    def load(self, names: Sequence[str], now: float) -> float:
        """Load the key and chain from `file`.

        Args:
            names: DNS names that the certificate must have.
            now: current time, in seconds since the epoch.

        Returns:
            Modification time of the file, in seconds since the epoch.

        Raises:
            PairError: the file is missing or its content is invalid.
        """
        try:
            pem, written = self.file.read_bytes(), self.file.stat().st_mtime
        except OSError as error:
            raise PairError(f"{self.file}: {error.strerror}") from None
        self._use(read_pair(pem, names, now, self._anchors()), Reload())
        return written

    def stamp(self) -> tuple[int, int] | None:
        """Return modification time and inode of the file, which change with each certificate; None without a file."""
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def replace(self, pem: bytes, names: Sequence[str], now: float, reload: Reload | None = None) -> Pair:
        """Validate *pem*, write it to `file`, and use it for every new handshake.

        Args:
            pem: private key and chain, in PEM.
            names: DNS names that the certificate must have.
            now: current time, in seconds since the epoch.
            reload: passed to the callbacks of `on_change`; None means a reload without a restart.

        Raises:
            PairError: the new key or chain is invalid; the old one stays in use.
        """
        pair = read_pair(pem, names, now, self._anchors())
        self._context(pair, (None, ()))  # if OpenSSL rejects the pair, raise before anything has changed
        atomic_write(self.file, pem, 0o600)
        self._use(pair, reload or Reload())
        return pair

    def replace_naively(self, pem: bytes, names: Sequence[str], now: float) -> Pair:
        """Overwrite `file` with *pem* and load it into the live contexts, without validation (negative control).

        The listeners use *pem* while ``naive()`` is true; after that they use the last valid key and chain again.

        Raises:
            PairError: OpenSSL failed to load *pem*; the listeners' contexts may be left in an inconsistent state.
        """
        for each in self._listeners:
            if not each.live and self._pair is not None:
                self._load(
                    each.outer, self._pair
                )  # start from the state of a naive server: the current pair in the live context
                each.live = True
        with self.file.open("wb") as file:
            file.write(pem)
        for each in self._listeners:
            try:
                each.outer.load_cert_chain(self.file, password=b"")
            except (ssl.SSLError, ValueError) as error:
                raise PairError(f"load_cert_chain on a live context failed: {error}") from None
        # A naive server does not check names, dates or the chain, so it also uses an invalid certificate.
        leaf = x509.load_pem_x509_certificates(pem)[0]
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        try:
            pair = read_pair(pem, names, now, self._anchors())
        except PairError:
            return Pair(pem, tuple(names), f"{leaf.serial_number:x}", leaf.issuer.rfc4514_string(), before, after)
        self._use(pair, Reload())
        return pair

    def server_context(self, client_ca: Path | None = None, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """Return a TLS context for a listener, which always presents the newest certificate.

        It may be created before the first certificate, and before a process forks: the processes then resume each
        other's sessions, because they encrypt tickets with the same key.

        Args:
            client_ca: PEM file with roots; if given, clients must present a certificate that chains to one of them.
            alpn: ALPN protocols in order of preference.
        """
        kind = (client_ca, alpn)
        listener = _Listener(kind, _server_context(kind))
        if self.ready:
            self._newest(kind)

        def switch(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
            if listener.live:
                if self._naive():
                    return
                listener.live = False
            connection.context = self._for(name)._newest(kind, self._padding(name))  # noqa: SLF001 - same class

        listener.outer.sni_callback = switch
        self._listeners.append(listener)
        return listener.outer

    def add(self, other: "Credentials") -> None:
        """Present the certificate of *other* to clients whose SNI is one of its names (RFC 6066 section 3).

        Until *other* has a certificate, these clients receive this object's certificate.
        """
        self._others.append(other)

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context for outgoing mTLS connections; each renewal creates a new one."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self.trust)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._pair is not None:
                self._load(context, self._pair)
            self._client = context
        return self._client

    def on_change(self, callback: Callable[[Reload], None]) -> None:
        """Call *callback* each time a new certificate comes into use."""
        self._callbacks.append(callback)

    def _use(self, pair: Pair, reload: Reload) -> None:
        kinds = {*self._inner, *(listener.kind for listener in self._listeners)}
        inner = {kind: self._context(pair, kind) for kind in kinds}
        self._pair, self._inner, self._client = pair, inner, None
        self._padded.clear()
        for callback in self._callbacks:
            callback(reload)

    def _for(self, name: str | None) -> "Credentials":
        return next((each for each in self._others if each.ready and name in each.names), self)

    def _newest(self, kind: Kind, size: int = 0) -> ssl.SSLContext:
        if size:
            if (kind, size) not in self._padded:
                pair = replace(self.pair, pem=self.pair.pem + padding_certificate(size))
                self._padded[kind, size] = self._context(pair, kind)
            return self._padded[kind, size]
        if kind not in self._inner:
            self._inner[kind] = self._context(self.pair, kind)
        return self._inner[kind]

    def _anchors(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self.trust.read_bytes())
        except (OSError, ValueError) as error:
            raise PairError(f"{self.trust}: expected trust anchors in PEM: {error}") from None

    def _context(self, pair: Pair, kind: Kind) -> ssl.SSLContext:
        context = _server_context(kind)
        self._load(context, pair)
        return context

    def _load(self, context: ssl.SSLContext, pair: Pair) -> None:
        # OpenSSL loads keys and chains from files only; several processes may do so at the same time.
        path = self.file.with_name(f".{self.file.name}.{os.getpid()}.try")
        try:
            atomic_write(path, pair.pem, 0o600)
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise PairError(f"OpenSSL does not take this pair: {error}") from None
        finally:
            path.unlink(missing_ok=True)


def _server_context(kind: Kind) -> ssl.SSLContext:
    client_ca, alpn = kind
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        # Client verification is not switched with the context in the SNI callback, so the outer context needs it, too.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context
