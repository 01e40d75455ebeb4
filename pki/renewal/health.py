"""What health says of a certificate: whether somebody must look, and at what.

Pure: times are seconds since the epoch, and now is one of them.
"""

from dataclasses import dataclass

from renewal.schedule import overdue, tolerated_skew

#: What is judged: the certificate itself, the tries to renew it, and the clock by which both are seen.
CHECKS = ("certificate", "renewal", "clock")
#: Failures in a row at which health says so, however much life is left: one may be a hiccup, two are a pattern.
ALARM_AFTER = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """All that the health of one certificate depends on."""

    #: When it came into our hands; nominal life begins there, not at the backdated *not_before*.
    issued: float
    not_before: float
    not_after: float
    #: When its renewal was to begin.
    due: float
    #: Tries in a row that failed, and what the last one failed of.
    failures: int = 0
    last_error: str = ""
    #: Seconds by which our clock is ahead of the CA's; None as long as the CA has said nothing.
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so in one of `CHECKS`."""

    check: str
    ok: bool
    detail: str = ""


def judge(condition: Condition, now: float) -> list[Finding]:
    """Return a finding for each of `CHECKS`; of the clock only when it is known what the CA's says."""
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
