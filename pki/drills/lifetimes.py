"""Scaled certificate lifetimes: a drill maps a nominal lifetime of days to a real lifetime of seconds.

X.509 times have a resolution of 1 s and an order takes up to 1.5 s, so the real lifetime is at least 8 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments import Run, Undo

DAY = 86400.0
#: Nominal lifetime in days: the maximum for public web certificates from 2029-03-15 (CA/Browser Forum ballot SC-081v3).
NOMINAL_DAYS = 47.0
#: Expected time of renewal and its jitter, as fractions of the lifetime, for nominal lifetimes of at least ten days.
#: These values duplicate those in `renewal.schedule`, so that a drill does not rely on the code that it tests.
SHARE, JITTER = 2 / 3, 0.02
#: Expected delay from the scheduled renewal to the alarm: a fraction of the lifetime, but at least `MIN_GRACE` seconds.
GRACE, MIN_GRACE = 0.05, 1.5
#: Backdate of certificates in nominal seconds (one hour, as Let's Encrypt uses), and its minimum in real seconds.
BACKDATE, MIN_BACKDATE = 3600.0, 1.0
#: Time-out of one renewal, in seconds.
RENEWAL_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Conversion between nominal time and real time for a scaled certificate lifetime."""

    #: Lifetime of a certificate, in real seconds.
    life: float
    nominal_days: float = NOMINAL_DAYS

    @property
    def factor(self) -> float:
        """Nominal seconds per real second."""
        return self.nominal_days * DAY / self.life

    @property
    def backdate(self) -> float:
        """Backdate of certificates, in real seconds."""
        return max(MIN_BACKDATE, BACKDATE / self.factor)

    @property
    def alarm(self) -> float:
        """Fraction of the lifetime at which an overdue renewal must raise an alarm."""
        return SHARE + max(GRACE, MIN_GRACE / self.life)

    def seconds(self, days: float) -> float:
        """Convert nominal days to real seconds; `nominal_days` nominal days last `life` seconds."""
        return days * DAY / self.factor

    def days(self, seconds: float) -> float:
        """Convert real seconds to nominal days."""
        return seconds * self.factor / DAY


async def renew(run: Run, host: str) -> None:
    """Make *host* renew its certificate now, and wait until it has done so.

    Raises:
        Exception: the renewal failed; the message states the reason.
    """
    await run.lab.call(host, "POST", "/admin/renew", {}, timeout=RENEWAL_TIMEOUT)


def renewal_when_undone(host: str, instead_of: str) -> Undo:
    """Return an undo entry that makes *host* renew, to replace the certificate that a drill leaves behind.

    Args:
        host: the host that renews.
        instead_of: description of the replaced certificate, for the log.
    """
    return Undo(f"{instead_of} of {host}", host, "POST", "/admin/renew", {})


async def shorten(run: Run, hosts: Sequence[str], scale: Scale) -> None:
    """Make the CA issue certificates with a lifetime of ``scale.life`` seconds, and renew the certificates of *hosts*.

    At the end of the run this is undone in the following order: each host's schedule, the CA's lifetime setting, and a
    renewal of each host with the normal lifetime.
    """
    for host in hosts:
        run.lab.undo_log.add(renewal_when_undone(host, "short certificate"))
    body = {"seconds": scale.life, "backdate": scale.backdate}
    undo = Undo("the CA's lifetime", "ca", "DELETE", "/admin/lifetime")
    await run.lab.inject(f"leaves live {scale.life:.3g} s", "ca", "PUT", "/admin/lifetime", body, undo=undo)
    for host in hosts:
        run.lab.undo_log.add(Undo(f"schedule of {host}", host, "DELETE", "/admin/schedule"))
        schedule = {"scale": scale.factor, "seed": run.rng.randrange(1 << 30)}
        await run.lab.call(host, "PUT", "/admin/schedule", schedule)
        await renew(run, host)
