"""The health checks of a certificate.

Pure functions: times, including the current one, are arguments in seconds since the epoch.
"""

from dataclasses import dataclass

from renewal.schedule import overdue, tolerated_skew

#: The checks: the certificate itself, the attempts to renew it, and the local clock.
CHECKS = ("certificate", "renewal", "clock")
#: Failed renewals in a row that make the check fail, however much lifetime is left; a single one may be chance.
ALARM_AFTER = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """The input of the checks."""

    #: When we received the certificate; its nominal lifetime begins then, not at the backdated *not_before*.
    issued: float
    not_before: float
    not_after: float
    #: When its renewal is due.
    due: float
    #: Number of failed attempts in a row, and the error of the last one.
    failures: int = 0
    last_error: str = ""
    #: Seconds by which our clock is ahead of the CA's; None if the CA's time is not known yet.
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one of `CHECKS`."""

    check: str
    ok: bool
    detail: str = ""


def judge(condition: Condition, now: float) -> list[Finding]:
    """Return a finding for each of `CHECKS`; for the clock only if the CA's time is known."""
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
