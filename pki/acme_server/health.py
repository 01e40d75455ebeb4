"""Health checks of the CA: its own certificate, the issuing certificate, the store and the CRL.

Pure functions: all times, including the current time, are arguments in seconds since the epoch.
"""

from dataclasses import dataclass

#: How late the server's own certificate may be renewed before an alarm is raised, as a fraction of its lifetime.
GRACE = 0.1
#: Minimum remaining validity of the issuing certificate, as a multiple of the leaf lifetime; leaves must expire before
#: the issuing certificate does.
RESERVE = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one health check."""

    check: str
    ok: bool
    detail: str


def own_certificate(now: float, issued: float, renew_at: float, not_after: float, failure: str) -> Finding:
    """Check the ACME server's own certificate; *failure* is the error of the last renewal, empty if it succeeded."""
    left, why = not_after - now, f"; {failure}" if failure else ""
    if left <= 0:
        return Finding("own certificate", ok=False, detail=f"expired {-left:.0f} s ago{why}")
    late = now - renew_at
    ok = late <= GRACE * (not_after - issued)
    return Finding("own certificate", ok, f"{left:.0f} s left" + ("" if ok else f", renewal is {late:.0f} s late{why}"))


def issuing_certificate(now: float, not_before: float, not_after: float, leaf_lifetime: float) -> Finding:
    """Check the issuing certificate; *leaf_lifetime* is the lifetime of the leaves that it signs, in seconds."""
    left = not_after - now
    if not not_before <= now < not_after:
        return Finding("issuing certificate", ok=False, detail="it is not valid now: clients reject all of its leaves")
    ok = left >= RESERVE * leaf_lifetime
    short = "" if ok else f", less than {RESERVE:g} lifetimes of a leaf: replace it"
    return Finding("issuing certificate", ok, f"{left / 86400:.1f} days left{short}")


def store(failure: str) -> Finding:
    """Check the store; *failure* is the error of the last write, empty if it succeeded."""
    return Finding("store", not failure, failure or "written")


def revocation_list(now: float, next_update: float) -> Finding:
    """Check that the CRL has not passed its nextUpdate.

    Once it has, clients that require a current CRL reject every certificate.
    """
    left = next_update - now
    return Finding("crl", left > 0, f"{left:.0f} s to nextUpdate" if left > 0 else f"ended {-left:.0f} s ago")
