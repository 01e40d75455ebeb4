"""Leaf certificates: issuance, the fault ``misissue``, and admin requests that list leaves or change their lifetime.

The lifetime can be changed while the server is running.  `acme_server.server` implements the ACME requests.
"""

import ssl
from dataclasses import asdict
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server import misissue
from authority import BACKDATE, Certificate, IssuanceLog, Issuer, Store, Urls
from authority.issuance_log import facts_of, fingerprint_of
from authority.leaf_template import Leaf, LeafTemplate
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
            profiles: certificate profiles, keyed by name; the first is the default.
        """
        self._log, self._profiles, self._default = issued, profiles, next(iter(profiles.values()))
        self._telemetry, self._store, self._lifetime = telemetry, store, lifetime
        self.use(issuer, urls)
        #: Lifetime and backdate of new leaves, in seconds: the time from issuance to notAfter, and from notBefore to
        #: issuance.  Drills change both.
        self.lifetime, self.backdate = lifetime, BACKDATE
        #: Lifetimes in seconds of leaves that contain a certain DNS name, keyed by name.
        self._by_name: dict[str, float] = {}
        self._issued = telemetry.metrics.counter("firstbyte_ca_certificates_issued_total", "Certificates issued")
        telemetry.faults.declare("misissue", "Issue certificates that must not be used", kind=misissue.KINDS)
        telemetry.route("GET", "/admin/certificates", self._certificates)
        telemetry.route("GET", "/admin/certificates/{serial}", self._certificate)
        telemetry.route("GET", "/admin/lifetime", lambda _: self._show_lifetime())
        telemetry.route("PUT", "/admin/lifetime", self._set_lifetime)
        telemetry.route("DELETE", "/admin/lifetime", self._reset_lifetime)
        telemetry.route("PUT", "/admin/lifetime/{name}", self._set_lifetime_of)
        telemetry.route("DELETE", "/admin/lifetime/{name}", self._reset_lifetime_of)

    def issue(
        self, public_key: Any, names: tuple[str, ...], now: float, account: str | None, profile: str = ""
    ) -> Certificate:
        """Issue a leaf for *account*, with a defect if the fault ``misissue`` is on, and add it to the issuance log.

        The caller stores the returned record; the store's `before_commit` writes the log.  An empty or unknown
        *profile* selects the default.

        Raises:
            LintError: lint found problems in the certificate, which is therefore not signed.
        """
        kind = self._profiles.get(profile) or self._default
        lifetime = self.lifetime if kind.lifetime is None else min(kind.lifetime, self.lifetime)
        backdate = self.backdate
        if short := [self._by_name[name] for name in names if name in self._by_name]:
            lifetime = min(lifetime, *short)
            # Clients renew after a share of the whole validity period, which a long backdate would distort.
            backdate = min(backdate, max(1.0, lifetime / 50))
        leaf = self._template(kind).issue(public_key, names, now, lifetime, backdate)
        chain, faults = self._chain, self._telemetry.faults
        if account is not None and faults.any_on and (wrong := faults.hit("misissue")) is not None:
            bad, others = misissue.misissue(str(wrong["kind"]), leaf.certificate, self._issuer, now)
            leaf, chain = Leaf.of(bad), "".join(each.public_bytes(Encoding.PEM).decode() for each in others)
            names = (misissue.WRONG_NAME,) if wrong["kind"] == "wrong-san" else names
        before, after = float(leaf.not_before), float(leaf.not_after)
        self._log.add(now, facts_of(leaf.serial, self._issuer_name, before, after, leaf.der), names, account)
        self._issued.inc()
        pem = ssl.DER_cert_to_PEM_cert(leaf.der) + chain
        return Certificate(
            f"{leaf.serial:x}", account, names, before, after, now, pem, issuer=self._issuer.key_id.hex()
        )

    def _template(self, profile: Profile) -> LeafTemplate:
        if (found := self._templates.get(profile.name)) is None:
            urls = self._urls if profile.revocation else None
            found = self._templates[profile.name] = LeafTemplate(self._issuer, urls, profile.usage_oids)
        return found

    def issue_own(self, public_key: Any, name: str) -> Certificate:
        """Issue and store the ACME server's own certificate."""
        certificate = self.issue(public_key, (name,), self._telemetry.clock.time(), None)
        self._store.put_certificate(certificate)
        self._store.commit()
        return certificate

    def use(self, issuer: Issuer, urls: Urls | None) -> None:
        """Sign all future leaves with *issuer*, whose CRL, certificate and OCSP responder are at *urls*."""
        self._issuer, self._urls = issuer, urls
        self._issuer_name = issuer.certificate.subject.rfc4514_string()
        self._chain = "".join(each.public_bytes(Encoding.PEM).decode() for each in issuer.chain)
        #: Pre-encoded DER parts of leaf certificates, keyed by profile.
        self._templates: dict[str, LeafTemplate] = {}

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
        seconds = _seconds("seconds", body.get("seconds", self.lifetime), SHORTEST_LIFETIME, LONGEST_LIFETIME)
        self.backdate = _seconds("backdate", body.get("backdate", self.backdate), 0.0, 86400.0)
        self.lifetime = seconds
        self._telemetry.altered["lifetime"] = f"{self.lifetime:g} s"
        logger.warning("lifetime_changed", seconds=self.lifetime, backdate_s=self.backdate)
        return self._show_lifetime()

    def _reset_lifetime(self, _: Request) -> dict[str, float]:
        """Restore the lifetime from the command line and the default backdate (``DELETE /admin/lifetime``)."""
        self.lifetime, self.backdate = self._lifetime, BACKDATE
        self._telemetry.altered.pop("lifetime", None)
        return self._show_lifetime()

    def _set_lifetime_of(self, request: Request) -> dict[str, float]:
        """Shorten the lifetime of future leaves that contain a DNS name (``PUT /admin/lifetime/NAME``)."""
        body, name = request.json(), request.params["name"].lower()
        if not isinstance(body, dict) or set(body) != {"seconds"}:
            raise AdminError(400, f'expected {{"seconds": …}}, got {body!r}'[:200])
        self._by_name[name] = _seconds("seconds", body["seconds"], SHORTEST_LIFETIME, LONGEST_LIFETIME)
        self._telemetry.altered[f"lifetime of {name}"] = f"{self._by_name[name]:g} s"
        logger.warning("lifetime_changed", name=name, seconds=self._by_name[name])
        return dict(self._by_name)

    def _reset_lifetime_of(self, request: Request) -> dict[str, float]:
        """Restore the default lifetime for a DNS name (``DELETE /admin/lifetime/NAME``)."""
        name = request.params["name"].lower()
        self._by_name.pop(name, None)
        self._telemetry.altered.pop(f"lifetime of {name}", None)
        return dict(self._by_name)


def _seconds(key: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise AdminError(400, f"expected {key} from {low:g} to {high:g} seconds, got {value!r}")
    return float(value)
