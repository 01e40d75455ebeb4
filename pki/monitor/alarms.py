"""State machine of a monitor's alarms: takes findings and times, returns the alarms that begin or end.

Nothing here opens a socket or reads a clock.  In addition to the checks of endpoints, it detects probers that disagree
(`AGREEMENT`), senders of heartbeats that fall silent (`HEARTBEAT`), certified names that are not monitored
(`INVENTORY`), and channels that do not deliver (`CHANNEL`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monitor.judgement import Finding, State

AGREEMENT, HEARTBEAT, INVENTORY, CHANNEL = "agreement", "heartbeat", "inventory", "channel"
#: Number of missed heartbeats after which their sender counts as silent.
MISSED = 3
#: Maximum number of monitors whose heartbeats are followed, because anyone may send one.
MAX_PEERS = 100


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What an alarm is about."""

    #: Endpoint, name, monitor or channel.
    about: str
    check: str
    #: Prober that made the finding; empty for alarms that are not from one prober.
    prober: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.check}" + (f" ({self.prober})" if self.prober else "")


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm that begins or ends."""

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
    """The active alarms of one monitor."""

    active: dict[Subject, str] = field(default_factory=dict)
    #: Checks whose outcome is unknown, with the reason.
    unknown: dict[Subject, str] = field(default_factory=dict)
    _peers: dict[str, _Peer] = field(default_factory=dict)
    _previous: dict[str, bool] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Alarms active={len(self.active)} unknown={len(self.unknown)} peers={len(self._peers)}>"

    def report(self, now: float, about: str, findings: Mapping[str, Sequence[Finding]]) -> list[Change]:
        """Record the findings of one round on an endpoint; return the alarms that begin or end.

        Args:
            now: current time, in seconds.
            about: the endpoint.
            findings: findings by prober; a check that is missing, because an earlier check failed, keeps its state.
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
        """Record a heartbeat of the monitor *peer*, which sends one every *interval* seconds; ignore surplus peers."""
        if peer not in self._peers and len(self._peers) >= MAX_PEERS:
            return []
        self._peers[peer] = _Peer(now, interval)
        return self._set(now, Subject(peer, HEARTBEAT), "heartbeats arrive again", active=False)

    def tick(self, now: float) -> list[Change]:
        """Return an alarm for each monitor whose last heartbeat is more than `MISSED` intervals old."""
        changes = []
        for name, peer in self._peers.items():
            age = now - peer.heard
            if age > MISSED * peer.interval:
                detail = f"no heartbeat for {age:.1f} s, expected one every {peer.interval:g} s"
                changes += self._set(now, Subject(name, HEARTBEAT), detail, active=True)
        return changes

    def inventory(self, now: float, unwatched: Mapping[str, str]) -> list[Change]:
        """Record the certified names that no monitored endpoint has; *unwatched* maps each to its serial number."""
        gone = [s for s in self.active if s.check == INVENTORY and s.about not in unwatched]
        changes = [c for s in gone for c in self._set(now, s, "monitored, or no longer certified", active=False)]
        for name, serial in unwatched.items():
            detail = f"certificate {serial} is valid, but no monitored endpoint has this name"
            changes += self._set(now, Subject(name, INVENTORY), detail, active=True)
        return changes

    def channel(self, now: float, name: str, failure: str) -> list[Change]:
        """Record whether the channel *name* delivers; *failure* is empty if it does."""
        return self._set(now, Subject(name, CHANNEL), failure or "delivers again", active=bool(failure))

    def _compare(self, now: float, about: str, findings: Mapping[str, Sequence[Finding]]) -> list[Change]:
        """Raise an alarm if different checks fail in two rounds in a row: a single round may straddle a renewal."""
        bad = {prober: [f for f in found if f.state is State.ALARM] for prober, found in findings.items()}
        differ = len({frozenset(finding.check for finding in each) for each in bad.values()}) > 1
        repeated = differ and self._previous.get(about, False)
        self._previous[about] = differ
        if differ and not repeated:
            return []
        words = "; ".join(f"{prober}: {found[0].detail if found else 'no alarm'}" for prober, found in bad.items())
        return self._set(now, Subject(about, AGREEMENT), words, active=differ)

    def _set(self, now: float, subject: Subject, detail: str, *, active: bool) -> list[Change]:
        """Set or clear one alarm; return the change, if there is one."""
        before = subject in self.active
        if active:
            self.active[subject] = detail
        else:
            self.active.pop(subject, None)
        return [Change(now, subject, active, detail)] if before != active else []


def unwatched(certified: Iterable[tuple[str, str]], watched: Iterable[str]) -> dict[str, str]:
    """Return the certified names that are not monitored, with the serial number of their newest certificate.

    Args:
        certified: names and serial numbers of the certificates that are valid now, oldest first.
        watched: hosts of the monitored endpoints, and all names in the certificates that these present.
    """
    known = set(watched)
    return {name: serial for name, serial in certified if name not in known}
