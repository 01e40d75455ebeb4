"""Recalls: through renewal information (RFC 9773), an operator asks clients to replace certificates within a window.

A recall selects certificates by serial number, by issuer, or all certificates.  Recalls are stored on disk and stay in
force until the operator ends them.  The certificates stay valid; revoking them is a separate step.
"""

from collections.abc import Sequence
from typing import Any

from authority import Certificate, Recall, Store
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("acme_server")

#: Allowed members of the JSON body of ``POST /admin/recall``.
MEMBERS = {"serials", "issuer", "in_s", "spread_s", "explanation_url"}
#: Shortest window, in seconds: a window must not be empty.
MIN_SPREAD = 1.0
#: Maximum number of names in the report of a recall.
MAX_NAMED = 200


class Recalls:
    """The recalls in force, and the admin routes that begin, show and end recalls."""

    def __init__(self, telemetry: Telemetry, store: Store) -> None:
        """Load the recalls in force from *store*, and declare the admin routes."""
        self._clock, self._store = telemetry.clock, store
        self._recalls: Sequence[Recall] = store.recalls()
        telemetry.route("POST", "/admin/recall", self._begin)
        telemetry.route("GET", "/admin/recall", lambda _: self._show())
        telemetry.route("DELETE", "/admin/recall", lambda _: self._end())

    def __repr__(self) -> str:
        return f"<Recalls {len(self._recalls)} in force>"

    def of(self, certificate: Certificate) -> Recall | None:
        """Return the recall with the earliest window among those that select *certificate*, or None."""
        found = [each for each in self._recalls if each.selects(certificate)]
        return min(found, key=lambda each: each.start, default=None)

    def _begin(self, request: Request) -> dict[str, Any]:
        """Begin a recall (``POST /admin/recall {"serials": ["0a"], "in_s": 0, "spread_s": 60}``)."""
        body = request.json()
        if not isinstance(body, dict) or set(body) - MEMBERS:
            raise AdminError(400, f"expected an object with members among {', '.join(sorted(MEMBERS))}")
        serials, issuer, url = body.get("serials"), body.get("issuer", ""), body.get("explanation_url", "")
        known = sorted({each.issuer for each in self._store.certificates()} - {""})
        if "issuer" in body and issuer not in known:
            raise AdminError(400, f"expected issuer to be a key identifier of {', '.join(known)}; got {issuer!r}"[:400])
        if serials is not None and not (isinstance(serials, list) and serials and all(map(self._is_known, serials))):
            raise AdminError(400, f"expected serial numbers of certificates of this CA, got {serials!r}"[:200])
        if not isinstance(url, str) or (url and not url.startswith("http")):
            raise AdminError(400, "expected explanation_url to be an HTTP URL")
        after, spread = _seconds(body, "in_s", 0.0), _seconds(body, "spread_s", 60.0)
        now = self._clock.time()
        start = now + after
        ends = start + max(MIN_SPREAD, spread)
        recall = Recall(now, tuple(serials or ()), issuer, start, ends, url)
        self._store.add_recall(recall)
        self._recalls = (*self._recalls, recall)
        logger.warning("recall_begun", serials=list(recall.serials), issuer=issuer, start=start, end=ends, url=url)
        return self._show()

    def _is_known(self, serial: object) -> bool:
        return isinstance(serial, str) and self._store.certificate(serial) is not None

    def _show(self) -> dict[str, Any]:
        """Return the state of each recall: numbers of selected and of replaced certificates, and names of the rest."""
        now = self._clock.time()
        valid = self._store.certificates(now)
        replaced = self._store.replaced()
        rows = []
        for each in self._recalls:
            selected = [found for found in valid if each.selects(found) and found.account is not None]
            outstanding = [found for found in selected if not _is_replaced(found, valid, replaced)]
            rows.append(
                {
                    "serials": each.serials,
                    "issuer": each.issuer,
                    "start": each.start,
                    "end": each.end,
                    "explanation_url": each.url,
                    "selected": len(selected),
                    "replaced": len(selected) - len(outstanding),
                    "outstanding": sorted({name for found in outstanding for name in found.names})[:MAX_NAMED],
                }
            )
        return {"recalls": rows}

    def _end(self) -> dict[str, Any]:
        self._store.end_recalls()
        self._recalls = ()
        logger.warning("recalls_ended")
        return self._show()


def _is_replaced(certificate: Certificate, valid: Sequence[Certificate], replaced: set[str]) -> bool:
    """Return whether an order replaced the certificate, or the account has a newer certificate for all of its names."""
    return certificate.serial in replaced or any(
        each.account == certificate.account
        and each.issued > certificate.issued
        and set(certificate.names) <= set(each.names)
        for each in valid
    )


def _seconds(body: dict[str, Any], member: str, default: float) -> float:
    value = body.get(member, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10 * 365 * 86400:
        raise AdminError(400, f"expected {member} to be a number of seconds, got {value!r}"[:200])
    return float(value)
