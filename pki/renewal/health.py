"""Health checks for a certificate, its renewal and the local clock.

Pure functions: all times, including the current time, are arguments in seconds since the epoch.
"""

from dataclasses import dataclass

from renewal.lifecycle import Lifecycle, Validity
from renewal.schedule import overdue, tolerated_skew

#: Names of the health checks: certificate expiry, failed renewals, clock skew, and whether the certificate is on disk.
CHECKS = ("certificate", "renewal", "clock", "file")
#: Consecutive failed renewals that make the check ``renewal`` fail, regardless of the remaining lifetime.  A single
#: failure may be transient.
ALARM_AFTER = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """State of a certificate and its renewal, which the health checks evaluate."""

    held: Validity
    lifecycle: Lifecycle
    #: How far the local clock is ahead of the CA's, in seconds; None if the CA's time is not known yet.
    skew: float | None = None
    #: Error of the last attempt to write the certificate to disk; empty if it is on disk.
    unsaved: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one health check; *check* is its name in `CHECKS`."""

    check: str
    ok: bool
    detail: str = ""


def judge(condition: Condition, now: float) -> list[Finding]:
    """Return a finding for each check in `CHECKS`; the clock is checked only if the CA's time is known."""
    findings = [_certificate(condition, now), _renewal(condition.lifecycle), _file(condition.unsaved)]
    if condition.skew is not None:
        findings.append(_clock(condition.held, condition.skew))
    return findings


def _certificate(condition: Condition, now: float) -> Finding:
    held, due = condition.held, condition.lifecycle.due
    left, life = held.not_after - now, held.not_after - held.issued
    why = condition.lifecycle.last_error or "not renewed"
    if left <= 0:
        return Finding("certificate", ok=False, detail=f"expired {now - held.not_after:.0f} s ago; {why}")
    if now > overdue(due, life):
        late = f"renewal was due {now - due:.0f} s ago"
        return Finding("certificate", ok=False, detail=f"{late}, {left:.0f} s of {life:.0f} s left; {why}")
    return Finding("certificate", ok=True, detail=f"{left:.0f} s left")


def _renewal(lifecycle: Lifecycle) -> Finding:
    if lifecycle.shortened:
        detail = f"the new certificate ends {lifecycle.shortened:.0f} s earlier than the one that it replaced"
        return Finding("renewal", ok=False, detail=detail)
    if not lifecycle.failures:
        return Finding("renewal", ok=True)
    detail = f"{lifecycle.failures} failures in a row: {lifecycle.last_error}"
    return Finding("renewal", ok=lifecycle.failures < ALARM_AFTER, detail=detail)


def _clock(held: Validity, skew: float) -> Finding:
    limit = tolerated_skew(held.not_after - held.not_before)
    side = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):.1f} s {side} the CA; up to {limit:.1f} s is tolerated"
    return Finding("clock", ok=abs(skew) <= limit, detail=detail)


def _file(unsaved: str) -> Finding:
    return Finding("file", ok=not unsaved, detail=f"the certificate is in memory only: {unsaved}" if unsaved else "")
