"""The CRL of one issuer (RFC 5280 section 5).

The CRL is renewed after each revocation and at half of its lifetime, so that it never expires.
"""

from cryptography.hazmat.primitives.serialization import Encoding

from authority import BACKDATE, Issuer, Store, issue_crl
from telemetry import log
from telemetry.metrics import Gauge

logger = log.get("acme_server")

#: Lifetime of a CRL or OCSP response, in seconds.
LIFETIME = 3600.0


class RevocationList:
    """The newest CRL of one issuer."""

    def __init__(self, issuer: Issuer, store: Store, size: Gauge) -> None:
        """Create an object that has no CRL yet; call `renew_if_due` before the first request is served.

        Args:
            issuer: the CA that signs the CRL.
            store: the CA's database.
            size: gauge of the number of entries, by issuer.
        """
        self._issuer, self._store, self._size = issuer, store, size
        #: Times of issuance and of nextUpdate, in seconds since the epoch.
        self.issued = self.next_update = 0.0
        #: The CRL in DER; empty before the first call of `renew_if_due`.
        self.der = b""
        self._changed = True

    def changed(self) -> None:
        """Record that a certificate was revoked, so that a new CRL is due."""
        self._changed = True

    def renew_if_due(self, now: float) -> bool:
        """Issue and store a new CRL if it is due, or if *now* is before the issuance of the newest CRL.

        Returns:
            Whether a CRL was issued.

        Raises:
            StoreError: the store cannot be read or written; the CRL stays due.
        """
        if not self._changed and self.issued <= now < (self.issued + self.next_update) / 2:
            return False
        # An expired certificate stays on one more CRL (RFC 5280 section 3.3).
        revoked = self._store.revoked(now - LIFETIME, self._issuer.key_id.hex())
        number = self._store.next_crl_number()
        self.der = issue_crl(self._issuer, revoked, number, now, LIFETIME, BACKDATE).public_bytes(Encoding.DER)
        self.issued, self.next_update, self._changed = now, now + LIFETIME, False
        subject = self._issuer.certificate.subject.rfc4514_string()
        self._size.set(len(revoked), issuer=subject)
        logger.info("crl_issued", issuer=subject, number=number, entries=len(revoked))
        return True
