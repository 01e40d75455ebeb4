"""The issuer's CRL and certificate, over plain HTTP (RFC 5280 sections 4.2.1.13 and 4.2.2.1, RFC 2585).

The CRL is renewed after each revocation and at half of its lifetime, so that it never reaches its nextUpdate.
"""

import hashlib
from email.utils import formatdate

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority import BACKDATE, Issuer, Store, Urls, issue_crl
from telemetry import Telemetry, log

logger = log.get("acme_server")

#: Lifetime of a CRL, in seconds.
LIFETIME = 3600.0
#: Time for which clients may cache a CRL (``Cache-Control: max-age``), in seconds.  It is short, so that a revocation
#: takes effect within seconds; public CAs use hours.
MAX_AGE = 5


class RevocationList:
    """The newest CRL of one issuer."""

    def __init__(self, telemetry: Telemetry, issuer: Issuer, store: Store) -> None:
        """Create the object without a CRL; call `renew_if_due` before the first request is served."""
        self._telemetry, self._issuer, self._store = telemetry, issuer, store
        identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        self._name = identifier.digest.hex()[:16]
        #: Times of issuance and of nextUpdate, in seconds since the epoch.
        self.issued = self.next_update = 0.0
        self._changed = True
        self._der, self._etag = b"", ""
        self._size = telemetry.metrics.gauge("firstbyte_ca_revoked_certificates", "Entries of the newest CRL")

    def urls(self, base: str) -> Urls:
        """Return the URLs to put into leaves; *base* is the scheme and host, for example ``http://ca.example.com``."""
        return Urls(f"{base}/crl/{self._name}.crl", f"{base}/issuer/{self._name}.cer")

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
        revoked = self._store.revoked(now - LIFETIME)
        number = self._store.next_crl_number()
        crl = issue_crl(self._issuer, revoked, number, now, LIFETIME, BACKDATE)
        self._der = crl.public_bytes(Encoding.DER)
        self._etag = hashlib.sha256(self._der).hexdigest()[:32]
        self.issued, self.next_update, self._changed = now, now + LIFETIME, False
        self._size.set(len(revoked))
        logger.info("crl_issued", number=number, entries=len(revoked))
        return True

    def application(self) -> web.Application:
        """Return the HTTP application that serves the CRL and the issuer's certificate in DER."""
        application = web.Application()
        application.router.add_get(f"/crl/{self._name}.crl", self._crl)
        application.router.add_get(f"/issuer/{self._name}.cer", self._certificate)
        return application

    async def _crl(self, request: web.Request) -> web.Response:
        matches = request.if_none_match or ()
        response = web.Response(body=self._der, content_type="application/pkix-crl")
        if any(each.value in {self._etag, "*"} for each in matches):
            response = web.Response(status=304)
        response.etag = self._etag
        response.headers["Cache-Control"] = f"max-age={MAX_AGE}"
        response.headers["Last-Modified"] = formatdate(self.issued, usegmt=True)
        response.headers["Expires"] = formatdate(self.next_update, usegmt=True)
        return response

    async def _certificate(self, _: web.Request) -> web.Response:
        der = self._issuer.certificate.public_bytes(Encoding.DER)
        return web.Response(body=der, content_type="application/pkix-cert", headers={"Cache-Control": "max-age=86400"})
