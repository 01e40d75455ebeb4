"""The CRL of one issuer (RFC 5280 section 5).

The CRL is renewed after each revocation and at half of its lifetime, so that it never expires.  The encoded entries
stay in memory, so that a new CRL with 100,000 entries blocks the event loop for only a few hundredths of a second.
"""

import hashlib

from authority import BACKDATE, Certificate, Issuer, Store
from authority.revocation import Revoked, encode_entry, sign_crl
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
        #: CRL number (RFC 5280 section 5.2.3); 0 before the first CRL.
        self.number = 0
        #: The CRL in DER, and its entity tag; empty before the first call of `renew_if_due`.
        self.der, self.etag = b"", ""
        #: Certificate expiry (seconds since the epoch) and encoded CRL entry, keyed by serial number; None until loaded
        #: from the store.
        self._entries: dict[int, tuple[float, bytes]] | None = None
        self._changed = True

    def changed(self, certificate: Certificate) -> None:
        """Add or update the entry of a revoked *certificate* of this CA, so that a new CRL is due; ignore others."""
        if certificate.revoked is None or certificate.issuer not in {"", self._issuer.key_id.hex()}:
            return
        self._changed = True
        if self._entries is not None:
            revoked = Revoked(int(certificate.serial, 16), certificate.revoked, certificate.reason or 0)
            self._entries[revoked.serial] = certificate.not_after, encode_entry(revoked)

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
        after = now - LIFETIME
        if self._entries is None or now < self.issued:  # if the clock was set back, removed entries are needed again
            found = self._store.revoked(after, self._issuer.key_id.hex())
            self._entries = {each.serial: (end, encode_entry(each)) for end, each in found}
        elif expired := [serial for serial, (end, _) in self._entries.items() if end <= after]:
            for serial in expired:
                del self._entries[serial]
        entries, number = self._entries, self._store.next_crl_number()
        encoded = b"".join(entry for _, entry in entries.values())
        self.der = sign_crl(self._issuer, encoded, number, now, LIFETIME, BACKDATE)
        self.etag = hashlib.sha256(self.der).hexdigest()[:32]
        self.issued, self.next_update, self._changed = now, now + LIFETIME, False
        self.number = number
        subject = self._issuer.certificate.subject.rfc4514_string()
        self._size.set(len(entries), issuer=subject)
        logger.info("crl_issued", issuer=subject, number=number, entries=len(entries))
        return True
