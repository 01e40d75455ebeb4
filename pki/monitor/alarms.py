"""State machine for a monitor's alarms; from findings and times it derives the alarms that begin or end.

This module does not open sockets or read clocks.  In addition to failed endpoint checks, it raises alarms for probers
that disagree (`AGREEMENT`), missing heartbeats (`HEARTBEAT`), certified names that are not monitored (`INVENTORY`), and
channels that fail to deliver alarms (`CHANNEL`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monitor.judgement import Finding, State

AGREEMENT, HEARTBEAT, INVENTORY, CHANNEL = "agreement", "heartbeat", "inventory", "channel"
#: Number of missed heartbeats after which an alarm about the sender is raised.
MISSED = 3
#: Maximum number of monitors whose heartbeats are tracked; the limit is needed because anyone can send heartbeats.
MAX_PEERS = 100


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Identifies an alarm by what it is about, the failed check, and the prober."""

    #: The endpoint, name, monitor or channel that has the problem.
    about: str
    check: str
    #: Prober that reported the finding; empty for alarms that no single prober reports.
    prober: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.check}" + (f" ({self.prober})" if self.prober else "")


@dataclass(frozen=True, slots=True)
class Change:
    """The beginning or the end of an alarm."""

    at: float
    subject: Subject
    active: bool
    detail: str

    def as_json(self) -> dict[str, Any]:
        """Return the change as the body of a webhook request."""
        kind = "alarm" if self.active else "cleared"
        subject = self.subject
        return {
            "kind": kind, "at": round(self.at, 3), "about": subject.about, "check": subject.check,
            "prober": subject.prober, "detail": self.detail,
        }  # fmt: skip


@dataclass(slots=True)
class _Peer:
    heard: float
    interval: float


@dataclass(slots=True)
class Alarms:
    """State of one monitor's alarms."""

    active: dict[Subject, str] = field(default_factory=dict)
    #: Reasons why the outcome of a check is unknown, keyed by check.
    unknown: dict[Subject, str] = field(default_factory=dict)
    _peers: dict[str, _Peer] = field(default_factory=dict)
    _previous: dict[str, bool] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Alarms active={len(self.active)} unknown={len(self.unknown)} peers={len(self._peers)}>"

    def report(self, now: float, about: str, findings: Mapping[str, Sequence[Finding]]) -> list[Change]:
        """Record one round's findings about an endpoint; return the alarms that begin or end.

        Args:
            now: current time, in seconds.
            about: the endpoint.
            findings: findings by prober; a check without a finding, because an earlier check failed, keeps its state.
        """
        changes: list[Change] = []
        for prober, found in findings.items():
            for each in found:
                subject = Subject(about, each.check, prober)
                self.unknown.pop(subject, None)
                if each.state is State.UNKNOWN:
                    self.unknown[subject] = each.detail
                    continue
                changes += self._set(now, subject, each.detail, active=each.state is State.ALARM)
        changes += self._compare(now, about, findings)
        return changes

    def heard(self, now: float, peer: str, interval: float) -> list[Change]:
        """Record a heartbeat from monitor *peer*, sent every *interval* seconds; ignore peers beyond `MAX_PEERS`."""
        if peer not in self._peers and len(self._peers) >= MAX_PEERS:
            return []
        self._peers[peer] = _Peer(now, interval)
        return self._set(now, Subject(peer, HEARTBEAT), "heartbeats arrive again", active=False)

    def tick(self, now: float) -> list[Change]:
        """Return a new alarm for each monitor whose last heartbeat is more than `MISSED` intervals old."""
        changes = []
        for name, peer in self._peers.items():
            age = now - peer.heard
            if age > MISSED * peer.interval:
                detail = f"no heartbeat for {age:.1f} s, expected one every {peer.interval:g} s"
                changes += self._set(now, Subject(name, HEARTBEAT), detail, active=True)
        return changes

    def inventory(self, now: float, unwatched: Mapping[str, str]) -> list[Change]:
        """Record certified names that are not monitored; *unwatched* maps each name to its serial number."""
        gone = [s for s in self.active if s.check == INVENTORY and s.about not in unwatched]
        changes = [c for s in gone for c in self._set(now, s, "monitored, or no longer certified", active=False)]
        for name, serial in unwatched.items():
            detail = f"certificate {serial} is valid, but no monitored endpoint has this name"
            changes += self._set(now, Subject(name, INVENTORY), detail, active=True)
        return changes

    def channel(self, now: float, name: str, failure: str) -> list[Change]:
        """Record whether the channel *name* delivers; *failure* is the error message, empty on success."""
        return self._set(now, Subject(name, CHANNEL), failure or "delivers again", active=bool(failure))

    def _compare(self, now: float, about: str, findings: Mapping[str, Sequence[Finding]]) -> list[Change]:
        """Raise an alarm if probers disagree in two consecutive rounds; a renewal can explain one such round."""
        bad = {prober: [f for f in found if f.state is State.ALARM] for prober, found in findings.items()}
        differ = len({frozenset(finding.check for finding in each) for each in bad.values()}) > 1
        repeated = differ and self._previous.get(about, False)
        self._previous[about] = differ
        if differ and not repeated:
            return []
        words = "; ".join(f"{prober}: {found[0].detail if found else 'no alarm'}" for prober, found in bad.items())
        return self._set(now, Subject(about, AGREEMENT), words, active=differ)

    def _set(self, now: float, subject: Subject, detail: str, *, active: bool) -> list[Change]:
        """Set or clear one alarm; return the change, or nothing if the alarm's state is the same as before."""
        before = subject in self.active
        if active:
            self.active[subject] = detail
        else:
            self.active.pop(subject, None)
        return [Change(now, subject, active, detail)] if before != active else []


def unwatched(certified: Iterable[tuple[str, str]], watched: Iterable[str]) -> dict[str, str]:
    """Return the certified names that are not monitored, each with the serial number of its newest certificate.

    Args:
        certified: names and serial numbers of the currently valid certificates, oldest first.
        watched: hosts of the monitored endpoints, and all names in the certificates that these endpoints present.
    """
    known = set(watched)
    return {name: serial for name, serial in certified if name not in known}
