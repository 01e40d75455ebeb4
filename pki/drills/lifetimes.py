"""Lifetimes of days in seconds: rules look at nominal time, and one scale maps it to the clock.

X.509 has whole seconds and an order takes up to 1.5 s, so a life of 47 days is squeezed into no less than 8 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments import Run, Undo

DAY = 86400.0
#: The longest life of a certificate of the public Web from 2029-03-15 on (CA/Browser Forum ballot SC-081v3).
NOMINAL_DAYS = 47.0
#: A nominal life of ten days or more is renewed after this share of it, with this much jitter.  `renewal.schedule` says the
#: same; it is repeated here so that a drill does not trust the code that it examines.
SHARE, JITTER = 2 / 3, 0.02
#: The alarm has to ring this share of life after the due renewal, or this many seconds, whichever is longer.
GRACE, MIN_GRACE = 0.05, 1.5
#: Nominal seconds by which certificates are backdated (one hour, as Let's Encrypt does), and the least in real seconds.
BACKDATE, MIN_BACKDATE = 3600.0, 1.0
#: Seconds that one renewal may take.
RENEWAL_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps nominal time to real time."""

    #: Real seconds that a certificate lives.
    life: float
    nominal_days: float = NOMINAL_DAYS

    @property
    def factor(self) -> float:
        """Nominal seconds per real second."""
        return self.nominal_days * DAY / self.life

    @property
    def backdate(self) -> float:
        """Real seconds by which certificates are backdated."""
        return max(MIN_BACKDATE, BACKDATE / self.factor)

    @property
    def alarm(self) -> float:
        """Share of life at which an overdue renewal is announced."""
        return SHARE + max(GRACE, MIN_GRACE / self.life)

    def seconds(self, days: float) -> float:
        """Return the real seconds of nominal *days*."""
        return days * DAY / self.factor

    def days(self, seconds: float) -> float:
        """Return the nominal days of real *seconds*."""
        return seconds * self.factor / DAY


async def renew(run: Run, host: str) -> None:
    """Let *host* renew its certificate now.

    Raises:
        Exception: the renewal was refused; the text says why.
    """
    await run.lab.call(host, "POST", "/admin/renew", {}, timeout=RENEWAL_TIMEOUT)


def renewal_when_undone(host: str, instead_of: str) -> Undo:
    """Return an undo entry that gives *host* a good certificate *instead_of* the one that a drill leaves it with."""
    return Undo(f"{instead_of} of {host}", host, "POST", "/admin/renew", {})


async def shorten(run: Run, hosts: Sequence[str], scale: Scale) -> None:
    """Make the CA issue certificates of ``scale.life`` seconds, and give one to each of *hosts*.

    The end of the run undoes it in this order: each host's schedule, the CA's lifetime, a long certificate for each host.
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
