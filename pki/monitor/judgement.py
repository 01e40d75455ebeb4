"""Judges a TLS endpoint by what a prober received: one finding per check.

All functions are pure: the current time is an argument, in seconds since the epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

#: All checks of an endpoint, in the order in which reports list them.
CHECKS = ("connection", "chain", "names", "expiry", "revocation", "disk")
#: Fraction of the lifetime after which a certificate should have been replaced.  Renewal is due at two thirds of the
#: lifetime (half, for lifetimes below ten days), and may be late by a twentieth of the lifetime.
ALARM_AT = 2 / 3 + 1 / 20


class State(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    ALARM = "alarm"
    #: The check could not be performed.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """Result of one prober's connection to one endpoint."""

    #: Reason why no certificate was received; empty if a certificate was received.
    error: str = ""
    leaf: x509.Certificate | None = None
    #: The certificates that the server sent after its leaf; empty if the prober has no access to them.
    issuers: tuple[x509.Certificate, ...] = ()
    #: Reason why the prober's verifier rejected the certificate; empty if the certificate was accepted.
    rejected: str = ""

    @property
    def serial(self) -> str:
        """The leaf's serial number in lower-case hexadecimal; empty if no leaf was received."""
        return "" if self.leaf is None else f"{self.leaf.serial_number:x}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check in `CHECKS`."""

    check: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Information about an endpoint that does not come from a prober: revocation status and certificate file."""

    #: Whether the issuer's CRL contains the leaf; None if this is unknown.
    revoked: bool | None = None
    #: Reason why the revocation status is unknown; otherwise the CRL that was searched.
    revocation: str = ""
    #: Certificate in the server's file; None if no file is given or the file cannot be read.
    on_disk: x509.Certificate | None = None
    #: Reason why the server's file cannot be read; empty if the file was read or no file is given.
    disk_error: str = ""


def judge(host: str, seen: Seen, evidence: Evidence, now: float, alarm_at: float = ALARM_AT) -> list[Finding]:
    """Return the findings about one endpoint; if no certificate was received, return only ``connection``.

    Args:
        host: DNS name that the certificate must have.
        seen: what the prober received from the endpoint.
        evidence: information about the endpoint that does not depend on the prober.
        now: current time, in seconds since the epoch.
        alarm_at: fraction of the lifetime after which a certificate should have been replaced.
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
    """Return the DNS names in a certificate's subjectAltName; the common name is ignored (RFC 9525)."""
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
    """Format a duration in the largest unit that gives a value of at least two."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
