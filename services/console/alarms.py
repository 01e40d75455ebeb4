"""Alarms with their messages.  Sans-IO and stateless: alarms are derived from the lab's current state."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from console.hosts import Host, Loss

#: How late a renewal may be before an alarm is raised, as a share of the certificate's lifetime.  The renewal agent
#: retries several times in this period.
OVERDUE = 0.1


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm, whose message has the form: *subject* *what* *when* *since*: *why* — *means*."""

    #: Severity: "bad" if something does not work; "warn" if it will soon fail, or if the failure is deliberate.
    level: str
    #: Grammatical subject of the message: one or more host names, or a noun phrase.
    subject: str
    what: str
    #: Start of the problem in seconds since the epoch, or None if unknown.
    since: float | None = None
    why: str = ""
    #: Consequence for users of the lab.
    means: str = ""
    #: Word in front of the time: "since" for a state, "at" for an event.
    when: str = "since"

    @property
    def text(self) -> str:
        """The alarm's message, with times in UTC."""
        since = "" if self.since is None else f" {self.when} {time.strftime('%H:%M:%S', time.gmtime(self.since))} UTC"
        why = f": {self.why}" if self.why else ""
        means = f" — {self.means}" if self.means else ""
        return f"{self.subject} {self.what}{since}{why}{means}"

    def as_dict(self) -> dict[str, Any]:
        """Return the alarm's fields, plus its message as ``text``, in the page's JSON format."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True, slots=True)
class Down:
    """A host that does not respond to polls."""

    host: Host
    since: float
    error: str
    #: Whether the host has ever responded.
    seen: bool


def of_hosts(down: Sequence[Down], losses: Iterable[Loss]) -> list[Alarm]:
    """Return one alarm per `Loss` whose hosts are all down (larger losses first), and one per remaining host."""
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


def of_health(host: Host, checks: Mapping[str, Mapping[str, Any]], since: float) -> Alarm:
    """Return the alarm for a host with failing health checks, listing these checks."""
    failing = [
        f"{name}: {check['detail']}" if check.get("detail") else name
        for name, check in checks.items()
        if not check.get("ok")
    ]
    what = "has been failing its health checks"
    return Alarm("bad", host.name, what, since, "; ".join(failing) or "no check has passed yet")


def of_certificate(host: Host, certificate: Mapping[str, Any]) -> Alarm | None:
    """Return an alarm if a certificate (snapshot entry) is missing, expired, overdue or failing to renew, else None."""
    left, used, renew_at = certificate["seconds_left"], certificate["used"], certificate["renew_at"]
    why = str(certificate["last_error"] or "")
    name = next(iter(certificate["names"]), host.fqdn)
    # An alarm about an additional certificate names that certificate instead of the host.
    owner = host.name if name == host.fqdn else name
    if left is None:
        return Alarm("bad", owner, "has no certificate", None, why)
    subject = f"the certificate of {owner}"
    if left <= 0:
        return Alarm("bad", subject, "expired", certificate["not_after"], why, f"clients reject {name}", "at")
    if used is not None and renew_at is not None and used > renew_at + OVERDUE:
        means = f"it expires in {_span(left)}"
        return Alarm("warn", subject, "has been due for renewal", certificate["next_renewal"], why, means)
    if why:
        return Alarm("warn", subject, "could not be renewed", None, why, f"it is valid for another {_span(left)}")
    return None


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
