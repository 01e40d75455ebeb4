"""Revocation by an account, with the certificate's own key, or by an operator (RFC 8555 section 7.6)."""

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server import problems
from acme_server.jws import SignedRequest, decode, read_jwk
from acme_server.orders import Orders
from acme_server.publication import Publications
from authority import UNREADABLE, Account, Certificate, fingerprint
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("acme_server")

#: Revocation reason codes accepted from clients: RFC 5280 section 5.3.1 without the codes for CAs and certificateHold.
REASONS = (0, 1, 3, 4, 5, 9)
KEY_COMPROMISE = 1


class Revocation:
    """Authorizes and performs revocations."""

    def __init__(self, telemetry: Telemetry, orders: Orders, published: Publications) -> None:
        """Declare the admin route; each revocation causes a new CRL and a new OCSP response in *published*."""
        self._clock, self._orders, self._store, self._published = telemetry.clock, orders, orders.store, published
        telemetry.route("POST", "/admin/revoke/{serial}", self.by_operator)

    def request(self, jws: SignedRequest, authenticate: Callable[[SignedRequest], Account]) -> None:
        """Revoke the certificate in an ACME request.

        Args:
            jws: the request, whose nonce and URL have been checked.
            authenticate: checks the signature of a request with an account's key, and returns the account.

        Raises:
            Problem: the request is malformed or not authorized, or the certificate is revoked already.
        """
        body = jws.json()
        try:
            certificate = x509.load_der_x509_certificate(decode(body.get("certificate", "")))
            own_key = certificate.public_key()
        except UNREADABLE:
            raise problems.malformed("expected a certificate in base64url DER") from None
        found = self._store.certificate(f"{certificate.serial_number:x}")
        if found is None or not found.pem.startswith(certificate.public_bytes(Encoding.PEM).decode()):
            raise problems.not_found("this CA did not issue that certificate")
        now = self._clock.time()
        if jws.jwk is not None:
            jws.verify(jws.jwk)
            if read_jwk(jws.jwk)[0] != own_key:
                raise problems.unauthorized("expected the certificate's own key")
        elif not self._orders.may_revoke(authenticate(jws), found, now):
            detail = "expected the account that ordered this certificate, or authorizations for all of its names"
            raise problems.unauthorized(detail)
        reason = body.get("reason", 0)
        if isinstance(reason, bool) or not isinstance(reason, int) or reason not in REASONS:
            raise problems.bad_revocation_reason(f"expected reason 0, 1, 3, 4, 5 or 9; got {reason!r}"[:200])
        # If the request reports a key compromise and is signed with the certificate's own key, the reason keyCompromise
        # replaces the reason of an earlier revocation.
        upgrade = jws.jwk is not None and reason == KEY_COMPROMISE != found.reason
        if found.revoked is not None and not upgrade:
            raise problems.already_revoked("this certificate was revoked before")
        self._revoke(found, now, reason)

    def by_operator(self, request: Request) -> dict[str, Any]:
        """Revoke a certificate by its serial number (``POST /admin/revoke/SERIAL {"reason": 1}``).

        Returns:
            The serial numbers of the certificates that this request revoked, and the reason now recorded for SERIAL.
            If SERIAL was revoked before, nothing changes, unless *reason* is keyCompromise and replaces another reason.
        """
        body = request.json()
        reason = body.get("reason", 0) if isinstance(body, dict) else None
        if isinstance(reason, bool) or reason not in REASONS:
            raise AdminError(400, f'expected {{"reason": 0, 1, 3, 4, 5 or 9}}, got {body!r}'[:200])
        serial = request.params["serial"]
        found = self._store.certificate(serial)
        if found is None:
            raise AdminError(404, f"expected the serial number of a certificate, got {serial!r}"[:200])
        upgrade = reason == KEY_COMPROMISE != found.reason
        if found.revoked is not None and not upgrade:
            return {"revoked": [], "reason": found.reason or 0}
        return {"revoked": self._revoke(found, self._clock.time(), reason), "reason": reason}

    def _revoke(self, found: Certificate, now: float, reason: int) -> list[str]:
        """Revoke a certificate, or after a key compromise all certificates with its key; return the serial numbers."""
        compromised = reason == KEY_COMPROMISE
        revoked = self._of_key(found, now) if compromised else [found]
        for each in revoked:
            self._store.revoke(each.serial, now, reason, _fingerprint(found) if compromised else "")
            self._published.changed(each.serial)
            logger.info("certificate_revoked", serial=each.serial, reason=reason)
        return [each.serial for each in revoked]

    def _of_key(self, certificate: Certificate, now: float) -> list[Certificate]:
        """Return *certificate* and all unexpired certificates with the same key."""
        print_ = _fingerprint(certificate)
        others = [each for each in self._store.certificates(now) if each.serial != certificate.serial]
        return [certificate, *(each for each in others if _fingerprint(each) == print_)]


def _fingerprint(certificate: Certificate) -> str:
    key: Any = x509.load_pem_x509_certificate(certificate.pem.encode()).public_key()
    return fingerprint(key)
