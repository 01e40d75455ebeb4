"""Serves the CRL, OCSP responses and the certificate of each of the CA's issuers over plain HTTP.

URL paths contain an identifier of the issuer's key.  Standards: RFC 5280 sections 4.2.1.13 and 4.2.2.1, RFC 2585,
RFC 6960 appendix A, and RFC 5019 for caching OCSP responses.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from email.utils import formatdate

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server import wrong_crl
from acme_server.ocsp_responder import OcspResponder
from acme_server.revocation_list import LIFETIME, RevocationList
from authority import IssuanceLog, Issuer, Store, StoreError, Urls
from authority.ocsp import MALFORMED, UNAUTHORIZED, BadRequestError, read_request
from telemetry import Telemetry, log

logger = log.get("acme_server")

#: How long clients may cache a CRL or an OCSP response (``Cache-Control: max-age``), in seconds.  The time is short so
#: that a revocation takes effect within seconds; public CAs use hours.
MAX_AGE = 5
#: Maximum size of an OCSP request, in bytes.  A request for a single certificate is about 80 bytes.
MAX_REQUEST = 4096
REQUEST_TYPE, RESPONSE_TYPE = "application/ocsp-request", "application/ocsp-response"


class Publication:
    """CRL and OCSP responder of one issuer."""

    def __init__(self, issuer: Issuer, crl: RevocationList, responder: OcspResponder) -> None:
        """Create the publication of an issuer from its CRL and its OCSP responder."""
        self.issuer, self.crl, self.ocsp = issuer, crl, responder
        #: Identifier of the issuer in URL paths: the first 16 hexadecimal digits of its subject key identifier.
        self.name = issuer.key_id.hex()[:16]

    def urls(self, base: str) -> Urls:
        """Return the URLs to put into leaves; *base* is the scheme and host, such as ``http://ca.example.com``."""
        name = self.name
        return Urls(f"{base}/crl/{name}.crl", f"{base}/issuer/{name}.cer", f"{base}/ocsp/{name}")


class Publications:
    """The publications of all issuers of the CA."""

    def __init__(self, telemetry: Telemetry, store: Store, issued: IssuanceLog) -> None:
        """Declare the metrics.

        The caller then calls `add` for each issuer, and `renew_if_due` before the first request.

        Args:
            telemetry: clock, faults and metrics of the service.
            store: the CA's database.
            issued: the issuance log.
        """
        self._clock, self._store, self._log, self._faults = telemetry.clock, store, issued, telemetry.faults
        wrong_crl.declare(self._faults)
        self._sizes = telemetry.metrics.gauge(
            "firstbyte_ca_revoked_certificates", "Entries of the newest CRL by issuer", "issuer"
        )
        self._responses = telemetry.metrics.counter(
            "firstbyte_ca_ocsp_responses_total", "OCSP responses by status of the certificate", "status"
        )
        self.by_name: dict[str, Publication] = {}

    def add(self, issuer: Issuer) -> Publication:
        """Create the publication of *issuer*, or update the chain of an existing one; return the publication."""
        crl = RevocationList(issuer, self._store, self._sizes)
        new = Publication(issuer, crl, OcspResponder(issuer, self._store, self._log, self._responses))
        found = self.by_name.setdefault(new.name, new)
        found.issuer = issuer
        return found

    def issuer(self, key_id: str) -> Issuer | None:
        """Return the issuer with the given key identifier (hexadecimal), or None."""
        return next((each.issuer for each in self.by_name.values() if each.issuer.key_id.hex() == key_id), None)

    def keep(self, issuers: Iterable[Issuer]) -> None:
        """Publish for exactly these *issuers*: add the new ones, and remove the publications of all others."""
        names = {self.add(each).name for each in issuers}
        self.by_name = {name: each for name, each in self.by_name.items() if name in names}

    @property
    def next_update(self) -> float:
        """The earliest nextUpdate among all CRLs, in seconds since the epoch."""
        return min(each.crl.next_update for each in self.by_name.values())

    def changed(self, serial: str) -> None:
        """Note that the store now lists the certificate with this serial number (hexadecimal) as revoked."""
        if (certificate := self._store.certificate(serial)) is None:
            return
        for each in self.by_name.values():
            each.crl.changed(certificate)
            each.ocsp.changed(int(serial, 16))

    def renew_if_due(self, now: float) -> None:
        """Renew all CRLs and OCSP responder certificates that are due for renewal.

        Raises:
            StoreError: the store or the issuance log cannot be written; the next call retries the renewals.
        """
        for each in self.by_name.values():
            each.ocsp.renew_if_due(now)
            each.crl.renew_if_due(now)

    def application(self) -> web.Application:
        """Return the HTTP application that serves CRLs, certificates and OCSP responses, all in DER."""
        application = web.Application(client_max_size=MAX_REQUEST)
        issuer = "{issuer:[0-9a-f]{16}}"
        application.router.add_get(f"/crl/{issuer}.crl", self._crl)
        application.router.add_get(f"/issuer/{issuer}.cer", self._certificate)
        application.router.add_get(f"/ocsp/{issuer}/{{request:.*}}", self._get_ocsp)
        application.router.add_post(f"/ocsp/{issuer}", self._post_ocsp)
        return application

    def _of(self, request: web.Request) -> Publication:
        found = self.by_name.get(request.match_info["issuer"])
        if found is None:
            raise web.HTTPNotFound
        return found

    async def _crl(self, request: web.Request) -> web.Response:
        found = self._of(request)
        crl = found.crl
        if (wrong := wrong_crl.wrong_crl(self._faults, found.issuer, crl, self._clock.time())) is not None:
            return wrong
        return _cached(request, crl.der, crl.etag, "application/pkix-crl", crl.issued, crl.next_update)

    async def _certificate(self, request: web.Request) -> web.Response:
        der = self._of(request).issuer.certificate.public_bytes(Encoding.DER)
        return web.Response(body=der, content_type="application/pkix-cert", headers={"Cache-Control": "max-age=86400"})

    async def _get_ocsp(self, request: web.Request) -> web.Response:
        """Answer an OCSP request in base64 in the URL path (RFC 6960 appendix A.1); proxies can cache the response."""
        try:
            der = base64.b64decode(request.match_info["request"], validate=True)
        except (binascii.Error, ValueError):
            der = b""
        return self._ocsp(request, der)

    async def _post_ocsp(self, request: web.Request) -> web.Response:
        if request.content_type != REQUEST_TYPE:
            raise web.HTTPUnsupportedMediaType(text=f"expected Content-Type {REQUEST_TYPE}\n")
        return self._ocsp(request, await request.read())

    def _ocsp(self, request: web.Request, der: bytes) -> web.Response:
        now = self._clock.time()
        try:
            found = self._of(request).ocsp.respond(read_request(der), now)
        except BadRequestError as error:
            logger.debug("ocsp_request_refused", error=str(error))
            return web.Response(body=MALFORMED.public_bytes(Encoding.DER), content_type=RESPONSE_TYPE)
        except StoreError as error:
            logger.error("store_failed", path=request.path, error=str(error))
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"}) from None
        if found is None:
            return web.Response(body=UNAUTHORIZED.public_bytes(Encoding.DER), content_type=RESPONSE_TYPE)
        etag = hashlib.sha256(found.der).hexdigest()[:32]
        return _cached(request, found.der, etag, RESPONSE_TYPE, found.signed, found.signed + LIFETIME)


def _cached(
    request: web.Request, body: bytes, etag: str, content_type: str, issued: float, next_update: float
) -> web.Response:
    """Return a response with *etag* and expiry (RFC 5019 section 6.2), or 304 if the client already has this *body*."""
    response = web.Response(body=body, content_type=content_type)
    if any(each.value in {etag, "*"} for each in request.if_none_match or ()):
        response = web.Response(status=304)
    response.etag = etag
    response.headers["Cache-Control"] = f"max-age={MAX_AGE}, public, no-transform, must-revalidate"
    response.headers["Last-Modified"] = formatdate(issued, usegmt=True)
    response.headers["Expires"] = formatdate(next_update, usegmt=True)
    return response
