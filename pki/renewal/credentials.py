"""The certificate in use, and its hot reload into running listeners and pools.

A listener's own context never changes: its SNI callback gives each new handshake the newest inner context.  (On a live
context, `load_cert_chain` is not atomic, and a mismatched pair breaks the server.)  A new pair is checked, and loaded
into a scratch context, before it is used.

`replace_naively` is the negative control of the drills: it deliberately does all of this wrong.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from hostfiles.atomic import atomic_write
from renewal.material import Pair, PairError, ballast, read_pair


@dataclass(frozen=True, slots=True)
class Reload:
    """How listeners should apply a new pair."""

    #: Close every connection and stop listening for *down_s* seconds, like a restart; otherwise keep running.
    restart: bool = False
    down_s: float = 0.0


#: What a listener wants of its contexts: roots that clients' certificates must lead to, and protocols (RFC 7301).
Kind = tuple[Path | None, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class _Listener:
    kind: Kind
    outer: ssl.SSLContext
    #: Whether a naive reload loaded a pair into the outer context itself.
    live: bool = False


class Credentials:
    """The certificate that a service presents, and the roots that it trusts."""

    def __init__(
        self,
        file: Path,
        trust: Path,
        *,
        naive: Callable[[], bool] = lambda: False,
        overweight: Callable[[str | None], int] = lambda _: 0,
    ) -> None:
        """Store the pair in *file* (mode 0600), and trust the roots in *trust*.

        Args:
            file: key and chain, PEM.
            trust: roots, PEM.
            naive: returns whether the effects of `replace_naively` should last.
            overweight: returns the bytes of padding to add to the chain for a name in the client's SNI; 0 means none.
        """
        self.file, self.trust = file, trust
        self._naive, self._overweight = naive, overweight
        self._pair: Pair | None = None
        self._listeners: list[_Listener] = []
        self._inner: dict[Kind, ssl.SSLContext] = {}
        self._heavy: dict[tuple[Kind, int], ssl.SSLContext] = {}
        self._others: list[Credentials] = []
        self._client: ssl.SSLContext | None = None
        self._callbacks: list[Callable[[Reload], None]] = []

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
        """Use the pair on disk; return when it was written.  Raises `PairError` if it is missing or invalid."""
        try:
            pem, written = self.file.read_bytes(), self.file.stat().st_mtime
        except OSError as error:
            raise PairError(f"{self.file}: {error.strerror}") from None
        self._use(read_pair(pem, names, now, self._anchors()), Reload())
        return written

    def replace(self, pem: bytes, names: Sequence[str], now: float, reload: Reload | None = None) -> Pair:
        """Check *pem*, write it, and let every new handshake use it.

        Args:
            pem: key and chain.
            names: DNS names that the certificate must have.
            now: seconds since the epoch.
            reload: passed to listeners; None means that they keep running.

        Raises:
            PairError: the pair is invalid; the old one stays in use.
        """
        pair = read_pair(pem, names, now, self._anchors())
        self._context(pair, (None, ()))  # raises before anything has changed if OpenSSL rejects it
        atomic_write(self.file, pem, 0o600)
        self._use(pair, reload or Reload())
        return pair

    def replace_naively(self, pem: bytes, names: Sequence[str], now: float) -> Pair:
        """Overwrite the file with *pem* and load it into the live contexts, without any check.

        The effect on listeners lasts while ``naive()`` is true; after that, the last valid pair is used again.

        Raises:
            PairError: loading failed; the listeners stay in whatever state OpenSSL left them.
        """
        for each in self._listeners:
            if not each.live and self._pair is not None:
                self._load(each.outer, self._pair)  # what a naive server had loaded when it started
                each.live = True
        with self.file.open("wb") as file:
            file.write(pem)
        for each in self._listeners:
            try:
                each.outer.load_cert_chain(self.file, password=b"")
            except (ssl.SSLError, ValueError) as error:
                raise PairError(f"load_cert_chain on a live context failed: {error}") from None
        # A server without checks does not notice wrong names, dates or a missing chain, so use the certificate anyway.
        leaf = x509.load_pem_x509_certificates(pem)[0]
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        try:
            pair = read_pair(pem, names, now, self._anchors())
        except PairError:
            return Pair(pem, tuple(names), f"{leaf.serial_number:x}", leaf.issuer.rfc4514_string(), before, after)
        self._use(pair, Reload())
        return pair

    def server_context(self, client_ca: Path | None = None, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """Return a context for a listener that always uses the newest certificate.

        Args:
            client_ca: PEM file of roots; if given, clients must present a certificate issued below one of them.
            alpn: protocols, the preferred one first.
        """
        kind = (client_ca, alpn)
        listener = _Listener(kind, _server_context(kind))
        self._newest(kind)

        def switch(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
            if listener.live:
                if self._naive():
                    return
                listener.live = False
            connection.context = self._for(name)._newest(kind, self._overweight(name))  # noqa: SLF001 - our own class

        listener.outer.sni_callback = switch
        self._listeners.append(listener)
        return listener.outer

    def beside(self, other: "Credentials") -> None:
        """Present *other*'s certificate, once it has one, to clients whose SNI is one of its names (RFC 6066 section 3)."""
        self._others.append(other)

    def client_context(self) -> ssl.SSLContext:
        """Return the context for outgoing mTLS connections; another object after each renewal."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self.trust)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._pair is not None:
                self._load(context, self._pair)
            self._client = context
        return self._client

    def on_change(self, callback: Callable[[Reload], None]) -> None:
        """Call *callback* after each renewal."""
        self._callbacks.append(callback)

    def _use(self, pair: Pair, reload: Reload) -> None:
        inner = {kind: self._context(pair, kind) for kind in self._inner}
        self._pair, self._inner, self._client = pair, inner, None
        self._heavy.clear()
        for callback in self._callbacks:
            callback(reload)

    def _for(self, name: str | None) -> "Credentials":
        return next((each for each in self._others if each.ready and name in each.names), self)

    def _newest(self, kind: Kind, octets: int = 0) -> ssl.SSLContext:
        if octets:
            if (kind, octets) not in self._heavy:
                pair = replace(self.pair, pem=self.pair.pem + ballast(octets))
                self._heavy[kind, octets] = self._context(pair, kind)
            return self._heavy[kind, octets]
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
        path = self.file.with_name(f".{self.file.name}.try")  # OpenSSL only reads files
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
        # Switching the context in the SNI callback does not change this setting, so the outer context needs it too.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context
