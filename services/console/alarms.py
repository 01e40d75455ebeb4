"""What is broken, in plain words.

Sans-IO.  An alarm is made anew from the state each time; it has no memory of its own.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.hosts import Host, Loss

#: Part of a certificate's life that may pass after the renewal was due before that is worth a sentence: the agent
#: tries again several times within it.
OVERDUE = 0.1


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sentence: *subject* *what* *when* *since*: *why* — *means*."""

    #: "bad" when something does not work, "warn" when it will not, or on purpose.
    level: str
    #: Who: host names, joined.
    subject: str
    what: str
    #: Since when, in seconds since the epoch; None when that is not known.
    since: float | None = None
    why: str = ""
    #: What it means for somebody who uses the lab.
    means: str = ""
    #: How *since* is joined to the sentence: "since" of a state, "at" of an event.
    when: str = "since"

    @property
    def text(self) -> str:
        """The sentence, with times in UTC."""
        since = "" if self.since is None else f" {self.when} {time.strftime('%H:%M:%S', time.gmtime(self.since))} UTC"
        why = f": {self.why}" if self.why else ""
        means = f" — {self.means}" if self.means else ""
        return f"{self.subject} {self.what}{since}{why}{means}"

    def as_dict(self) -> dict[str, Any]:
        """Return what the page gets."""
        return {
            "level": self.level,
            "subject": self.subject,
            "what": self.what,
            "since": self.since,
            "when": self.when,
            "why": self.why,
            "means": self.means,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Down:
    """A host that does not answer."""

    host: Host
    since: float
    error: str
    #: Whether it ever answered.
    seen: bool


def of_hosts(down: Sequence[Down], losses: Iterable[Loss]) -> list[Alarm]:
    """Say which hosts are down; a loss of several together is one sentence, the largest first."""
    left = {entry.host.name: entry for entry in down}
    alarms = []
    for loss in sorted(losses, key=lambda loss: -len(loss.of)):
        if not loss.of <= left.keys():
            continue
        together = [left.pop(name) for name in list(left) if name in loss.of]
        why = "; ".join(dict.fromkeys(entry.error for entry in together))
        since = max(entry.since for entry in together)
        alarms.append(
            Alarm("bad", _joined([entry.host.name for entry in together]), "have been down", since, why, loss.means)
        )
    for entry in left.values():
        what = "has been down" if entry.seen else "has not answered"
        alarms.append(Alarm("bad", entry.host.name, what, entry.since, entry.error, entry.host.without))
    return sorted(alarms, key=lambda alarm: alarm.since or 0)


def of_health(host: Host, health: Mapping[str, Any], since: float) -> Alarm:
    """Say which of a host's own checks fail."""
    checks = health.get("checks")
    failing = [
        f"{name}: {check.get('detail')}" if check.get("detail") else name
        for name, check in (checks.items() if isinstance(checks, dict) else ())
        if isinstance(check, dict) and not check.get("ok")
    ]
    return Alarm("bad", host.name, "has failed its own checks", since, "; ".join(failing) or "no check is ok yet")


def of_certificate(host: Host, certificate: Mapping[str, Any]) -> Alarm | None:
    """Say whether a certificate (an entry of the snapshot) has expired or is overdue."""
    left, used, renew_at = certificate["seconds_left"], certificate["used"], certificate["renew_at"]
    why = str(certificate["last_error"] or "")
    name = next(iter(certificate["names"]), host.fqdn)
    # One for a name of its own says nothing of the host as a whole.
    owner = host.name if name == host.fqdn else name
    if left is None:
        return Alarm("bad", owner, "has no certificate", None, why)
    subject = f"the certificate of {owner}"
    if left <= 0:
        return Alarm("bad", subject, "expired", certificate["not_after"], why, f"nobody can trust {name}", "at")
    if used is not None and renew_at is not None and used > renew_at + OVERDUE:
        minutes = f"it expires in {_span(left)}"
        return Alarm("warn", subject, "has been due for renewal", certificate["next_renewal"], why, minutes)
    if why:
        return Alarm("warn", subject, "could not be renewed", None, why, f"it is good for another {_span(left)}")
    return None


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
