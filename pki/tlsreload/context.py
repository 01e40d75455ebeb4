"""A server's TLS context whose certificates and trust are replaced while it serves.

`load_cert_chain` on a live context is not atomic, and with a mismatched pair it leaves the server broken.  Here the
listener keeps one outer context for ever; its SNI callback (RFC 6066 section 3) hands each new handshake to the newest
inner contexts.  A reload reads every file into new contexts and proves each pair by a handshake in memory; only when all
of them are good do they take the place of the old ones, all at once.

What a reload does not do: it does not end connections, and a session that a client resumes skips the new certificate
(RFC 8446 section 2.2).  ``resumption=False`` issues no sessions, for servers on which a reload must mean that the old
certificate is never relied upon again; that needs TLS 1.3.
"""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

#: Seconds between two looks at the files.
INTERVAL = 5.0
#: Flights of a handshake in memory: two are enough for either version.
_FLIGHTS = 4


class ReloadError(Exception):
    """The files cannot be used; the message says which, what was expected and what came.  The old ones go on serving."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate chain and its private key (PEM); *key* is *chain* where one file holds both."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in use."""

    #: DNS names, lower case; some with a wildcard.
    names: tuple[str, ...]
    #: Lower-case hexadecimal.
    serial: str
    #: Seconds since the epoch.
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class _Inner:
    certificate: Certificate
    context: ssl.SSLContext


class ReloadingContext:
    """The context for a listener, and what reloads it.

    With aiohttp::

        certificates = ReloadingContext([CertificateFiles(Path("chain.pem"), Path("key.pem"))])

        async def watch(app):
            task = asyncio.create_task(certificates.watch())

    Yield:
            task.cancel()

        app.cleanup_ctx.append(watch)
        web.run_app(app, ssl_context=certificates.context)
    """

    def __init__(
        self,
        files: Sequence[CertificateFiles],
        *,
        client_ca: Path | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        resumption: bool = True,
    ) -> None:
        """Load everything for the first time.

        Args:
            files: certificates; the first one serves clients that ask for no name, or for an unknown one.
            client_ca: roots (PEM); when given, clients must show a certificate that leads to one of them.
            alpn: protocols, the preferred one first (RFC 7301).
            resumption: whether clients may resume sessions across reloads.

        Raises:
            ReloadError: a file cannot be used.
        """
        if not files:
            raise ReloadError("expected at least one certificate, got none")
        self._files, self._client_ca, self._alpn, self._resumption = tuple(files), client_ca, list(alpn), resumption
        self._callbacks: list[Callable[[], None]] = []
        self.context = self._empty()
        self._stamps = self._stat()
        self._inner = self._read()
        self.context.sni_callback = self._switch

    def __repr__(self) -> str:
        return f"<ReloadingContext {', '.join(inner.certificate.serial[:8] for inner in self._inner)}>"

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificates in use, in the order of the files."""
        return tuple(inner.certificate for inner in self._inner)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each reload."""
        self._callbacks.append(callback)

    def reload(self) -> None:
        """Read all files again; every handshake that begins from now on uses them.

        Raises:
            ReloadError: one of them cannot be used; nothing was changed.
        """
        stamps = self._stat()
        self._inner = self._read()
        self._stamps = stamps
        for callback in self._callbacks:
            callback()

    def changed(self) -> bool:
        """Return whether a file differs from what was loaded, by time and size."""
        return self._stat() != self._stamps

    async def watch(self, interval: float = INTERVAL, on_error: Callable[[ReloadError], None] = lambda _: None) -> None:
        """Reload whenever a file changed, until cancelled.

        Args:
            interval: seconds between two looks.
            on_error: hears why a reload was refused, once for each state of the files.
        """
        refused: object = None
        while True:
            await asyncio.sleep(interval)  # between two looks
            stamps = self._stat()
            if stamps in (self._stamps, refused):
                continue
            try:
                self.reload()
            except ReloadError as error:
                refused = stamps
                on_error(error)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _switch(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._for(name).context

    def _for(self, name: str | None) -> _Inner:
        """Return the certificate for *name*: an exact match first, then a wildcard's (RFC 6125 section 6.4.3)."""
        if name and len(self._inner) > 1:
            wanted = name.lower()
            for candidate in (wanted, "*." + wanted.partition(".")[2]):
                for inner in self._inner:
                    if candidate in inner.certificate.names:
                        return inner
        return self._inner[0]

    def _stat(self) -> tuple[tuple[int, int] | None, ...]:
        paths = [path for files in self._files for path in (files.chain, files.key)]
        return tuple(_stamp(path) for path in (*paths, *([self._client_ca] if self._client_ca else [])))

    def _read(self) -> tuple[_Inner, ...]:
        return tuple(self._read_one(files) for files in self._files)

    def _read_one(self, files: CertificateFiles) -> _Inner:
        context = self._empty()
        try:
            context.load_cert_chain(files.chain, files.key, password=_no_passphrase)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ReloadError(
                f"{files.chain} and {files.key}: expected a chain and its key in PEM, got: {reason}"
            ) from None
        leaf = x509.load_der_x509_certificate(_shown_by(context, files.chain))
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise ReloadError(f"{files.chain}: expected a certificate with names, got one without") from None
        certificate = Certificate(
            tuple(name.lower() for name in names.get_values_for_type(x509.DNSName)),
            f"{leaf.serial_number:x}",
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
        )
        now = dt.datetime.now(dt.UTC).timestamp()
        if not certificate.not_before <= now < certificate.not_after:
            valid = f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S}"
            raise ReloadError(f"{files.chain}: expected a certificate that is valid now, got one for {valid} UTC")
        return _Inner(certificate, context)

    def _empty(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2 if self._resumption else ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(self._alpn)
        if not self._resumption:
            context.num_tickets = 0
        if self._client_ca is not None:
            # Switching contexts does not change this: the outer one needs it, too.
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except OSError as error:
                raise ReloadError(f"{self._client_ca}: expected roots in PEM, got: {error.strerror or error}") from None
        return context


def _no_passphrase() -> str:
    raise ValueError("a key that needs a passphrase")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _shown_by(context: ssl.SSLContext, chain: Path) -> bytes:
    """Return the certificate (DER) that a client sees, after a whole handshake in memory: key and certificate fit."""
    verify, context.verify_mode = context.verify_mode, ssl.CERT_NONE
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = stranger.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_FLIGHTS):
            done = 0
            for end in (client, server):
                try:
                    end.do_handshake()
                    done += 1
                except ssl.SSLWantReadError:
                    pass
            if done == 2 and (shown := client.getpeercert(binary_form=True)):
                return shown
    except ssl.SSLError as error:
        raise ReloadError(f"{chain}: expected a pair that completes a handshake, got: {error.reason}") from None
    finally:
        context.verify_mode = verify
    raise ReloadError(f"{chain}: expected a pair that completes a handshake, and it does not")
