"""The ACME server's own certificate, issued by the same CA and renewed at half of its lifetime.

Renewal does not close connections or change the listening context.  That context's SNI callback gives each new
handshake the newest inner context, because `load_cert_chain` on a live context is not atomic.
"""

import secrets
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from acme_server.leaves import Leaves, logger
from authority import new_key


class OwnCertificate:
    """A TLS server context, `context`, that always presents a valid certificate for one name."""

    def __init__(self, leaves: Leaves, name: str, scratch: Path) -> None:
        """Issue the first certificate.

        Args:
            leaves: issues the certificates.
            name: DNS name of the server.
            scratch: folder for a temporary file with the encrypted key, deleted after OpenSSL has loaded it.
        """
        self._leaves, self._name, self._scratch = leaves, name, scratch
        self.issued = self.not_after = self.renew_at = 0.0
        self._inner = self._issue()
        self.context = _server_context()
        self.context.sni_callback = self._switch

    def renew_if_due(self, now: float) -> bool:
        """Renew the certificate if half of its lifetime has passed, or if *now* is before its issuance.

        Returns:
            Whether the certificate was renewed.
        """
        if self.issued <= now < self.renew_at:
            return False
        self.renew()
        return True

    def renew(self) -> None:
        """Renew the server's own certificate now, for example because another CA now signs new leaves."""
        self._inner = self._issue()
        logger.info("own_certificate_renewed", name=self._name)

    def _switch(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._inner

    def _issue(self) -> ssl.SSLContext:
        key, password = new_key(), secrets.token_bytes(24)
        certificate = self._leaves.issue_own(key.public_key(), self._name)
        self.issued, self.not_after = certificate.issued, certificate.not_after
        self.renew_at = (certificate.issued + certificate.not_after) / 2
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        context = _server_context()
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix=".own-") as file:
            file.write(pem + certificate.pem.encode())
            file.flush()
            context.load_cert_chain(file.name, password=password)
        return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
