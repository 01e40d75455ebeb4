"""TLS server context whose certificates and trust anchors can be replaced while it is in use.

`load_cert_chain` is not atomic on a context in use: if key and certificate do not match, the server can no longer
complete handshakes. Therefore the listener keeps one outer context permanently, and its SNI callback (RFC 6066 section
3) switches each new handshake to an inner context. A reload loads all files into new inner contexts and tests each one
with a handshake in memory. Only if all tests succeed do the new contexts replace the old ones, all at the same time.
A context with a single certificate needs no callback before its first reload; the callback takes 7 µs per handshake.

A reload does not close connections, and a resumed session does not use the new certificate (RFC 8446 section 2.2).
Servers on which the old certificate must not be used after a reload can disable sessions with ``resumption=False``,
which requires TLS 1.3.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Interval between checks for changed files, in seconds.
INTERVAL = 5.0
#: Cipher suites for TLS 1.2: those with forward secrecy and authenticated encryption (RFC 9325 section 4.2).
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: Maximum number of flights in the in-memory test handshake; TLS 1.2 and TLS 1.3 both need two.
_FLIGHTS = 4
#: X509_V_FLAG_NO_CHECK_TIME; this module checks the validity period itself, for a more specific error message.
_NO_CHECK_TIME = 0x200000


class ReloadError(Exception):
    """A file cannot be used; the old files stay in use.

    The message names the file, and states what was expected and what was found.
    """


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Certificate chain and private key (PEM); *key* equals *chain* if one file contains both."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Properties of a certificate in use."""

    #: DNS names in lower case, including wildcard names.
    names: tuple[str, ...]
    #: Serial number in lower-case hexadecimal.
    serial: str
    #: Start of the validity period, in seconds since the epoch.
    not_before: float
    #: End of the validity period, in seconds since the epoch.
    not_after: float


@dataclass(frozen=True, slots=True)
class _Inner:
    certificate: Certificate
    context: ssl.SSLContext


class ReloadingContext:
    """TLS context for a listener, with methods that reload its certificate files.

    With aiohttp::

        certificates = ReloadingContext([CertificateFiles(Path("chain.pem"), Path("key.pem"))])

        async def watch(app):
            task = asyncio.create_task(certificates.watch())
            yield  # the application runs
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
        """Load all files for the first time.

        Args:
            files: certificates; the first one is used for clients that send no server name or an unknown one.
            client_ca: root certificates (PEM). If given, each client must present a certificate issued under one of
                them.
            alpn: protocols in order of preference (RFC 7301).
            resumption: whether clients may resume sessions, including those from before a reload.

        Raises:
            ReloadError: a file cannot be used.
        """
        if not files:
            raise ReloadError("expected at least one certificate, got none")
        self._files, self._client_ca, self._alpn, self._resumption = tuple(files), client_ca, list(alpn), resumption
        self._callbacks: list[Callable[[], None]] = []
        self._stamps = self._stat()
        self._inner = self._read()
        self.context = self._inner[0].context
        if len(self._inner) > 1:
            self.context.sni_callback = self._switch

    def __repr__(self) -> str:
        return f"<ReloadingContext {', '.join(inner.certificate.serial[:8] for inner in self._inner)}>"

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificates in use, in the order of the files."""
        return tuple(inner.certificate for inner in self._inner)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Register *callback*, which is called after each successful reload."""
        self._callbacks.append(callback)

    def reload(self) -> None:
        """Reload all files; new handshakes then use them.

        Raises:
            ReloadError: a file cannot be used; the old files stay in use.
        """
        stamps = self._stat()
        self._inner = self._read()
        self._stamps = stamps
        self.context.sni_callback = self._switch
        for callback in self._callbacks:
            callback()

    def changed(self) -> bool:
        """Return whether the modification time or size of any file has changed since it was loaded."""
        return self._stat() != self._stamps

    async def watch(self, interval: float = INTERVAL, on_error: Callable[[ReloadError], None] = lambda _: None) -> None:
        """Reload whenever a file has changed, until the task is cancelled.

        Args:
            interval: time between checks in seconds.
            on_error: called with the reason of a failed reload, once for each changed version of the files.
        """
        refused: object = None
        while True:
            await asyncio.sleep(interval)  # interval between checks of the files
            stamps = self._stat()
            if stamps in (self._stamps, refused):
                continue
            try:
                self.reload()
            except ReloadError as error:
                refused = stamps
                on_error(error)

    # --- internal -----------------------------------------------------------------------------------------------------

    def _switch(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._for(name).context

    def _for(self, name: str | None) -> _Inner:
        """Return the context that matches *name* exactly or by wildcard (RFC 6125 section 6.4.3), else the first."""
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
        except (OSError, ValueError) as error:  # ssl.SSLError is a subclass of OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ReloadError(
                f"{files.chain} and {files.key}: expected a chain and its key in PEM, got: {reason}"
            ) from None
        leaf = _shown_by(context, files.chain)
        names = tuple(value.lower() for kind, value in leaf.get("subjectAltName", ()) if kind == "DNS")
        if not names:
            raise ReloadError(f"{files.chain}: expected a certificate with names, got one without")
        begin, end = (float(ssl.cert_time_to_seconds(leaf[each])) for each in ("notBefore", "notAfter"))
        certificate = Certificate(names, leaf["serialNumber"].lower().lstrip("0"), begin, end)
        if not begin <= time.time() < end:
            valid = f"{_moment(begin)} to {_moment(end)}"
            raise ReloadError(f"{files.chain}: expected a certificate that is valid now, got one for {valid} UTC")
        return _Inner(certificate, context)

    def _empty(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2 if self._resumption else ssl.TLSVersion.TLSv1_3
        context.set_ciphers(CIPHERS)
        context.set_alpn_protocols(self._alpn)
        if not self._resumption:
            context.num_tickets = 0
        if self._client_ca is not None:
            # Switching to an inner context does not change the verification mode, so the outer context must require
            # client certificates, too.
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


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _shown_by(context: ssl.SSLContext, chain: Path) -> dict[str, Any]:
    """Return the fields of the server certificate; an in-memory handshake checks that the key matches."""
    # Python decodes only verified certificates, so the client trusts exactly this certificate.
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    client_context.load_verify_locations(cadata=_first_certificate(chain))
    verify, context.verify_mode = context.verify_mode, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
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
            if done == 2 and (shown := client.getpeercert()):
                return dict(shown)
    except ssl.SSLError as error:
        raise ReloadError(f"{chain}: expected a pair that completes a handshake, got: {error.reason}") from None
    finally:
        context.verify_mode = verify
    raise ReloadError(f"{chain}: expected a pair that completes a handshake, and it does not")


def _first_certificate(chain: Path) -> str:
    """Return the first certificate in a file (PEM), which is the server certificate."""
    text = chain.read_text(encoding="ascii", errors="replace")
    begin = text.find("-----BEGIN CERTIFICATE-----")
    end = text.find("-----END CERTIFICATE-----", begin)
    if begin < 0 or end < 0:
        raise ReloadError(f"{chain}: expected a certificate in PEM, got none")
    return text[begin : end + 26]
