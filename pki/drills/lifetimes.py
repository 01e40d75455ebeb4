"""Lifetimes of days, lived through in seconds: rules look at nominal time, and one scale maps it to the clock.

X.509 has whole seconds and an order takes up to 1.5 s, so a life of 47 days is squeezed into no less than 8 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments import Run, Undo

DAY = 86400.0
#: From 2029-03-15 on no certificate of the public Web may live longer (CA/Browser Forum ballot SC-081).
NOMINAL_DAYS = 47.0
#: Of a nominal life of ten days or more, the share after which it is renewed, and how far jitter spreads that
#: (`renewal.schedule`, stated here a second time so that a drill does not believe what it examines).
SHARE, JITTER = 2 / 3, 0.02
#: Share of life after the due renewal at which the alarm has to be there, and the seconds below which that is no delay.
GRACE, MIN_GRACE = 0.05, 1.5
#: Nominal seconds by which certificates are backdated: one hour, as Let's Encrypt does; a whole second at least.
BACKDATE, MIN_BACKDATE = 3600.0, 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A nominal life in a real one."""

    #: Seconds that a certificate lives.
    life: float
    nominal_days: float = NOMINAL_DAYS

    @property
    def factor(self) -> float:
        """Nominal seconds in one second."""
        return self.nominal_days * DAY / self.life

    @property
    def backdate(self) -> float:
        """Seconds by which certificates are backdated."""
        return max(MIN_BACKDATE, BACKDATE / self.factor)

    @property
    def alarm(self) -> float:
        """Share of life at which an overdue renewal is announced."""
        return SHARE + max(GRACE, MIN_GRACE / self.life)

    def seconds(self, days: float) -> float:
        """Return how long nominal *days* last."""
        return days * DAY / self.factor

    def days(self, seconds: float) -> float:
        """Return how many nominal days pass in *seconds*."""
        return seconds * self.factor / DAY


async def shorten(run: Run, hosts: Sequence[str], scale: Scale) -> None:
    """Let the CA issue certificates that live for ``scale.life`` seconds, and give one to each of *hosts*.

    The end of the run takes it back in this order: the rule of each host, the CA's lifetime, a long certificate for each.
    """
    for host in hosts:
        run.lab.undo_log.add(Undo(f"short certificate of {host}", host, "POST", "/admin/renew", {}))
    body = {"seconds": scale.life, "backdate": scale.backdate}
    undo = Undo("the CA's lifetime", "ca", "DELETE", "/admin/lifetime")
    await run.lab.inject(f"leaves live {scale.life:.3g} s", "ca", "PUT", "/admin/lifetime", body, undo=undo)
    for host in hosts:
        undo = Undo(f"schedule of {host}", host, "DELETE", "/admin/schedule")
        schedule = {"scale": scale.factor, "seed": run.rng.randrange(1 << 30)}
        run.lab.undo_log.add(undo)
        await run.lab.call(host, "PUT", "/admin/schedule", schedule)
        await run.lab.call(host, "POST", "/admin/renew", {}, timeout=60.0)
