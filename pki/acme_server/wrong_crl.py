"""Fault ``wrong_crl``: serves defective CRLs, which clients must reject while they keep their current CRL."""

from aiohttp import web

from acme_server.revocation_list import LIFETIME, RevocationList
from authority import Issuer, issue_root, new_key
from authority.revocation import sign_crl
from telemetry import Faults

#: Kinds of defects: no CRL at all (503), a CRL whose nextUpdate has passed, a CRL signed with another key, a CRL with a
#: lower number than the current one (a replay), and a truncated CRL.
KINDS = ("unavailable", "expired", "wrong-issuer", "replayed", "truncated")


def declare(faults: Faults) -> None:
    """Declare the fault."""
    faults.declare("wrong_crl", "Serve no CRL or a defective one", kind=KINDS)


def wrong_crl(faults: Faults, issuer: Issuer, crl: RevocationList, now: float) -> web.Response | None:
    """Return the response of the fault ``wrong_crl`` if it is on, otherwise None.

    Args:
        faults: the service's faults.
        issuer: the CA whose CRL was requested.
        crl: the issuer's current CRL.
        now: current time, in seconds since the epoch.
    """
    on = faults.hit("wrong_crl") if faults.any_on else None
    if on is None:
        return None
    match on["kind"]:
        case "unavailable":
            return web.Response(status=503)
        case "expired":
            body = sign_crl(issuer, b"", crl.number + 1, now - 2 * LIFETIME, LIFETIME)
        case "wrong-issuer":
            key = new_key()
            stranger = Issuer(issue_root(key, "another CA", now), key, ())
            body = sign_crl(stranger, b"", crl.number + 1, now, LIFETIME)
        case "replayed":
            body = sign_crl(issuer, b"", crl.number - 1, now, LIFETIME)
        case _:
            body = crl.der[: len(crl.der) // 2]
    return web.Response(body=body, content_type="application/pkix-crl")
