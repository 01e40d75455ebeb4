"""OCSP responder of one issuer (RFC 6960, RFC 5019) that caches each signed response for half of its lifetime.

The responder's key is created at startup and never written to disk; its certificate is added to the issuance log.
"""

from collections import OrderedDict
from dataclasses import dataclass

from acme_server.revocation_list import LIFETIME
from authority import BACKDATE, IssuanceLog, Issuer, Store
from authority.issuance_log import KEPT
from authority.ocsp import CertId, Responder, issuer_hashes, new_responder, sign_response
from authority.revocation import Revoked
from telemetry import log
from telemetry.metrics import Counter

logger = log.get("acme_server")

#: Maximum number of cached responses (about 700 bytes each); when it is exceeded, the least recently used response is
#: evicted.
MAX_STORED = 50_000


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed response in DER."""

    der: bytes
    #: Time of signing, in seconds since the epoch; nextUpdate is `LIFETIME` seconds later.
    signed: float
    #: Status of the certificate: ``good`` or ``revoked``.
    status: str


class OcspResponder:
    """Answers OCSP requests about the certificates of one issuer."""

    def __init__(self, issuer: Issuer, store: Store, issued: IssuanceLog, responses: Counter) -> None:
        """Create a responder that has no certificate yet; call `renew_if_due` before the first request.

        Args:
            issuer: the CA that issued both the certificates in question and the responder's own certificate.
            store: the CA's database.
            issued: the issuance log.
            responses: counter of responses, by status.
        """
        self._issuer, self._store, self._log, self._responses = issuer, store, issued, responses
        self._names = set(issuer_hashes(issuer))
        self._responder: Responder | None = None
        self._since = self._until = 0.0
        self._stored: OrderedDict[tuple[bytes, bytes, int], Signed] = OrderedDict()

    def __repr__(self) -> str:
        return f"<OcspResponder stored={len(self._stored)}>"

    def renew_if_due(self, now: float) -> bool:
        """Renew the responder's certificate at half of its lifetime, or if *now* is before its issuance.

        Returns:
            Whether the certificate was renewed.

        Raises:
            LogError: the new certificate cannot be logged; the old certificate stays in use.
        """
        if self._since <= now < (self._since + self._until) / 2:
            return False
        responder = new_responder(self._issuer, now)
        self._log.append(now, responder.certificate, (), None, KEPT)
        self._responder = responder
        self._since, self._until = now, responder.certificate.not_valid_after_utc.timestamp()
        self._stored.clear()
        logger.info("ocsp_responder_renewed", serial=f"{responder.certificate.serial_number:x}")
        return True

    def changed(self, serial: int) -> None:
        """Discard the cached responses about the certificate *serial* because its status has changed."""
        for name_hash, key_hash in self._names:
            self._stored.pop((name_hash, key_hash, serial), None)

    def respond(self, asked: CertId, now: float) -> Signed | None:
        """Return the signed response about a certificate; None if this issuer did not issue that certificate.

        Raises:
            StoreError: the store cannot be read.
        """
        stored = self._stored.get(asked.key)
        if stored is not None and stored.signed <= now < stored.signed + LIFETIME / 2:
            self._stored.move_to_end(asked.key)
            self._responses.inc(status=stored.status)
            return stored
        known = (asked.issuer_name_hash, asked.issuer_key_hash) in self._names
        found = self._store.certificate(f"{asked.serial:x}") if known else None
        if found is None or self._responder is None:
            self._responses.inc(status="unauthorized")
            return None
        revoked = None if found.revoked is None else Revoked(asked.serial, found.revoked, found.reason or 0)
        der = sign_response(self._responder, asked, revoked, now, LIFETIME, BACKDATE)
        signed = Signed(der, now, "good" if revoked is None else "revoked")
        self._responses.inc(status=signed.status)
        self._stored[asked.key] = signed
        if len(self._stored) > MAX_STORED:
            self._stored.popitem(last=False)
        return signed
