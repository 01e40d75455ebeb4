"""Health checks for a certificate, its renewal and the local clock.

Pure functions: all times, including the current time, are arguments in seconds since the epoch.
"""

from dataclasses import dataclass

from renewal.schedule import overdue, tolerated_skew

#: Names of the checks: remaining lifetime of the certificate, failed renewals, and skew of the local clock.
CHECKS = ("certificate", "renewal", "clock")
#: Consecutive failed renewals that make the check ``renewal`` fail, regardless of the remaining lifetime.  A single
#: failure may be transient.
ALARM_AFTER = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """State of a certificate and its renewal, which the health checks evaluate."""

    #: Time at which the service received the certificate; the lifetime counts from here, not from *not_before*.
    issued: float
    not_before: float
    not_after: float
    #: Time of the scheduled renewal.
    due: float
    #: Number of consecutive failed renewals, and the error of the last one.
    failures: int = 0
    last_error: str = ""
    #: How far the local clock is ahead of the CA's, in seconds; None if the CA's time is not known yet.
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one health check; *check* is its name in `CHECKS`."""

    check: str
    ok: bool
    detail: str = ""


def judge(condition: Condition, now: float) -> list[Finding]:
    """Return a finding for each check in `CHECKS`; the clock is checked only if the CA's time is known."""
    findings = [_certificate(condition, now), _renewal(condition)]
    if condition.skew is not None:
        findings.append(_clock(condition, condition.skew))
    return findings


def _certificate(condition: Condition, now: float) -> Finding:
    left, life = condition.not_after - now, condition.not_after - condition.issued
    why = condition.last_error or "not renewed"
    if left <= 0:
        return Finding("certificate", ok=False, detail=f"expired {now - condition.not_after:.0f} s ago; {why}")
    if now > overdue(condition.due, life):
        late = f"renewal was due {now - condition.due:.0f} s ago"
        return Finding("certificate", ok=False, detail=f"{late}, {left:.0f} s of {life:.0f} s left; {why}")
    return Finding("certificate", ok=True, detail=f"{left:.0f} s left")


def _renewal(condition: Condition) -> Finding:
    if not condition.failures:
        return Finding("renewal", ok=True)
    detail = f"{condition.failures} failures in a row: {condition.last_error}"
    return Finding("renewal", ok=condition.failures < ALARM_AFTER, detail=detail)


def _clock(condition: Condition, skew: float) -> Finding:
    limit = tolerated_skew(condition.not_after - condition.not_before)
    side = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):.1f} s {side} the CA; up to {limit:.1f} s is tolerated"
    return Finding("clock", ok=abs(skew) <= limit, detail=detail)
