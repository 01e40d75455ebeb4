"""Judgement of a TLS endpoint from what a prober received: one finding per check.

Pure functions: the current time is an argument, in seconds since the epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

#: All checks of one endpoint, in the order of reports.
CHECKS = ("connection", "chain", "names", "expiry", "revocation", "disk")
#: Share of the lifetime after which a certificate should have been replaced: renewal is due at two thirds (half, below
#: ten days), and may be late by a twentieth.
ALARM_AT = 2 / 3 + 1 / 20


class State(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    ALARM = "alarm"
    #: The check could not be made.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one prober received from one endpoint."""

    #: Why no certificate was received; empty if one was.
    error: str = ""
    leaf: x509.Certificate | None = None
    #: The certificates after the leaf, if the prober can see them.
    issuers: tuple[x509.Certificate, ...] = ()
    #: Reason for which the prober's verifier rejected the certificate; empty if it was accepted.
    rejected: str = ""

    @property
    def serial(self) -> str:
        """The leaf's serial number in lower-case hexadecimal; empty without a leaf."""
        return "" if self.leaf is None else f"{self.leaf.serial_number:x}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check in `CHECKS`."""

    check: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an endpoint in addition to what a prober received."""

    #: Whether the issuer's CRL contains the leaf; None: not known.
    revoked: bool | None = None
    #: Why revocation is not known, or which CRL was searched.
    revocation: str = ""
    #: Certificate in the server's file; None if there is no file to compare, or it cannot be read.
    on_disk: x509.Certificate | None = None
    #: Why the file cannot be read; empty if it can, or if there is none.
    disk_error: str = ""


def judge(host: str, seen: Seen, evidence: Evidence, now: float, alarm_at: float = ALARM_AT) -> list[Finding]:
    """Return the findings on one endpoint; without a certificate, only ``connection`` is judged.

    Args:
        host: DNS name that the certificate must have.
        seen: what the prober received.
        evidence: results that do not depend on the prober.
        now: current time, in seconds since the epoch.
        alarm_at: share of the lifetime after which a certificate should have been replaced.
    """
    leaf = seen.leaf
    if leaf is None:
        return [Finding("connection", State.ALARM, seen.error or "no certificate was received")]
    findings = [
        Finding("connection", State.OK),
        _finding("chain", seen.rejected, "accepted by the verifier"),
        _names(host, leaf),
        _expiry(leaf, seen.issuers, now, alarm_at),
        _revocation(evidence),
    ]
    if evidence.disk_error:
        findings.append(Finding("disk", State.UNKNOWN, evidence.disk_error))
    elif evidence.on_disk is not None:
        same = evidence.on_disk == leaf
        on_disk = f"serial number {evidence.on_disk.serial_number:x}"
        got = f"the file has {on_disk}, but the server presents {seen.serial}: it has not loaded the file"
        findings.append(_finding("disk", "" if same else got, on_disk))
    return findings


def _finding(check: str, alarm: str, detail: str = "") -> Finding:
    return Finding(check, State.ALARM if alarm else State.OK, alarm or detail)


def _names(host: str, leaf: x509.Certificate) -> Finding:
    names = names_of(leaf)
    wrong = "" if covers(names, host) else f"expected {host}, got {', '.join(names) or 'no names'}"
    return _finding("names", wrong, ", ".join(names))


def _expiry(leaf: x509.Certificate, issuers: Iterable[x509.Certificate], now: float, alarm_at: float) -> Finding:
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    left = duration(end - now)
    if now < begin:
        return _finding("expiry", f"valid only in {duration(begin - now)}")
    if now >= end:
        return _finding("expiry", f"expired {duration(now - end)} ago")
    for issuer in issuers:
        last = issuer.not_valid_after_utc.timestamp()
        if last < end:
            subject = issuer.subject.rfc4514_string()
            return _finding("expiry", f"{subject} in the chain ends {duration(end - last)} before the certificate")
    if now > begin + (end - begin) * alarm_at:
        return _finding("expiry", f"{left} of {duration(end - begin)} left: the renewal is overdue")
    return _finding("expiry", "", f"{left} left")


def _revocation(evidence: Evidence) -> Finding:
    if evidence.revoked is None:
        return Finding("revocation", State.UNKNOWN, evidence.revocation)
    return _finding("revocation", f"revoked: {evidence.revocation}" if evidence.revoked else "", evidence.revocation)


def names_of(leaf: x509.Certificate) -> list[str]:
    """Return the DNS names of a certificate (subjectAltName; the common name does not count, RFC 9525)."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def covers(names: Iterable[str], host: str) -> bool:
    """Return whether one of *names* matches *host*; a wildcard matches exactly one label (RFC 9525 section 6.3)."""
    host = host.lower().rstrip(".")
    return any(name == host or (name[:2] == "*." and host.partition(".")[2] == name[2:]) for name in names)


def duration(seconds: float) -> str:
    """Format a duration in the largest unit whose count is at least two."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
