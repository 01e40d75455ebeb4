"""Leaf certificates: issuance, the fault ``misissue``, and admin requests that list leaves or change their lifetime.

The lifetime can be changed while the server is running.  `acme_server.server` implements the ACME requests.
"""

from dataclasses import asdict
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server import misissue
from authority import BACKDATE, Certificate, IssuanceLog, Issuer, Store, Urls, issue_leaf
from authority.issuance_log import fingerprint_of
from authority.lint import check_leaf
from authority.profiles import Profile
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("acme_server")

#: Bounds of the leaf lifetime, in seconds.
SHORTEST_LIFETIME, LONGEST_LIFETIME = 5.0, 90 * 86400.0


class Leaves:
    """Issues leaf certificates."""

    def __init__(
        self,
        telemetry: Telemetry,
        issuer: Issuer,
        store: Store,
        lifetime: float,
        urls: Urls | None,
        issued: IssuanceLog,
        profiles: dict[str, Profile],
    ) -> None:
        """Declare the fault ``misissue`` and the admin routes.

        Args:
            telemetry: clock, faults and admin port of the service.
            issuer: signs the leaves.
            store: the CA's database, which stores the leaves.
            lifetime: default lifetime of leaves, in seconds.
            urls: URLs of the issuer's CRL and certificate; None if they are not served.
            issued: the issuance log; every leaf is logged before a client receives it.
            profiles: certificate profiles by name; the first is the default.
        """
        self._urls, self._log, self._profiles = urls, issued, profiles
        self._telemetry, self._issuer, self._store, self._lifetime = telemetry, issuer, store, lifetime
        #: Lifetime and backdate of new leaves, in seconds: the time from issuance to notAfter, and from notBefore to
        #: issuance.  Drills change both.
        self.lifetime, self.backdate = lifetime, BACKDATE
        self._issued = telemetry.metrics.counter("firstbyte_ca_certificates_issued_total", "Certificates issued")
        telemetry.faults.declare("misissue", "Issue certificates that must not be used", kind=misissue.KINDS)
        telemetry.route("GET", "/admin/certificates", self._certificates)
        telemetry.route("GET", "/admin/certificates/{serial}", self._certificate)
        telemetry.route("GET", "/admin/lifetime", lambda _: self._show_lifetime())
        telemetry.route("PUT", "/admin/lifetime", self._set_lifetime)
        telemetry.route("DELETE", "/admin/lifetime", self._reset_lifetime)

    def issue(
        self, public_key: Any, names: tuple[str, ...], now: float, account: str | None, profile: str = ""
    ) -> Certificate:
        """Issue and log a leaf for *account*, with a defect if the fault ``misissue`` is on.

        The caller stores the returned record.  An empty or unknown *profile* selects the default.

        Raises:
            LintError: lint found problems in the certificate, which is therefore not signed.
            LogError: the issuance log cannot be written.
        """
        kind = self._profiles.get(profile) or next(iter(self._profiles.values()))
        lifetime = self.lifetime if kind.lifetime is None else min(kind.lifetime, self.lifetime)
        urls = self._urls if kind.revocation else None
        asked = (public_key, names, now, lifetime, self.backdate, urls, kind.usage_oids)
        leaf = issue_leaf(self._issuer, *asked, lint=check_leaf)
        chain, faults = self._issuer.chain, self._telemetry.faults
        if account is not None and faults.any_on and (wrong := faults.hit("misissue")) is not None:
            leaf, chain = misissue.misissue(str(wrong["kind"]), leaf, self._issuer, now)
            names = (misissue.WRONG_NAME,) if wrong["kind"] == "wrong-san" else names
        self._log.append(now, leaf, names, account)
        pem = "".join(each.public_bytes(Encoding.PEM).decode() for each in (leaf, *chain))
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        self._issued.inc()
        serial, issuer = f"{leaf.serial_number:x}", self._issuer.key_id.hex()
        return Certificate(serial, account, names, before, after, now, pem, issuer=issuer)

    def issue_own(self, public_key: Any, name: str) -> Certificate:
        """Issue and store the ACME server's own certificate."""
        certificate = self.issue(public_key, (name,), self._telemetry.clock.time(), None)
        self._store.put_certificate(certificate)
        self._store.commit()
        return certificate

    def use(self, issuer: Issuer, urls: Urls | None) -> None:
        """Sign all future leaves with *issuer*, whose CRL, certificate and OCSP responder are at *urls*."""
        self._issuer, self._urls = issuer, urls

    # --- admin ------------------------------------------------------------------------------------------------------

    def _certificates(self, request: Request) -> dict[str, Any]:
        now = self._telemetry.clock.time()
        after = 0.0 if request.query.get("all") else now
        rows = [
            {
                "serial": each.serial,
                "names": each.names,
                "not_before": each.not_before,
                "not_after": each.not_after,
                "issued": each.issued,
                "seconds_left": round(each.not_after - now, 1),
                "revoked": each.revoked,
            }
            for each in self._store.certificates(after)
        ]
        return {
            "issuer": self._issuer.certificate.subject.rfc4514_string(),
            "lifetime_s": self.lifetime,
            "backdate_s": self.backdate,
            "certificates": rows,
        }

    def _certificate(self, request: Request) -> dict[str, Any]:
        """Return the details of one certificate, including whether the issuance log contains it."""
        serial = request.params["serial"]
        if (found := self._store.certificate(serial)) is None:
            raise AdminError(404, f"expected the serial number of a certificate, got {serial!r}"[:200])
        logged = not self._log.missing([fingerprint_of(x509.load_pem_x509_certificate(found.pem.encode()))])
        return {**asdict(found), "logged": logged}

    def _show_lifetime(self) -> dict[str, float]:
        return {"seconds": self.lifetime, "backdate": self.backdate}

    def _set_lifetime(self, request: Request) -> dict[str, float]:
        """Change the lifetime and backdate of future leaves, in seconds (``PUT /admin/lifetime``)."""
        body = request.json()
        if not isinstance(body, dict) or not body or set(body) - {"seconds", "backdate"}:
            raise AdminError(400, f'expected {{"seconds": …, "backdate": …}}, got {body!r}'[:200])
        for key, value, low, high in (
            ("seconds", body.get("seconds", self.lifetime), SHORTEST_LIFETIME, LONGEST_LIFETIME),
            ("backdate", body.get("backdate", self.backdate), 0.0, 86400.0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise AdminError(400, f"expected {key} from {low:g} to {high:g} seconds, got {value!r}")
        self.lifetime = float(body.get("seconds", self.lifetime))
        self.backdate = float(body.get("backdate", self.backdate))
        self._telemetry.altered["lifetime"] = f"{self.lifetime:g} s"
        logger.warning("lifetime_changed", seconds=self.lifetime, backdate_s=self.backdate)
        return self._show_lifetime()

    def _reset_lifetime(self, _: Request) -> dict[str, float]:
        """Restore the lifetime from the command line and the default backdate (``DELETE /admin/lifetime``)."""
        self.lifetime, self.backdate = self._lifetime, BACKDATE
        self._telemetry.altered.pop("lifetime", None)
        return self._show_lifetime()
