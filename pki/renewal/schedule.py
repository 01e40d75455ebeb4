"""When to renew a certificate, and when to retry (Let's Encrypt's integration guide; RFC 9773 section 4).

Pure: times are seconds since the epoch, randomness is passed in.  Rules that speak of days look at the *nominal*
lifetime: in a drill 47 days may last 12 s, and are renewed as 47 days would be.
"""

import random
from dataclasses import dataclass

#: Below this nominal lifetime certificates are renewed at half of it, else at two thirds.
SHORT_LIFETIME = 10 * 86400.0
SHORT_FRACTION, LONG_FRACTION = 1 / 2, 2 / 3
#: Share of the lifetime by which renewals vary, so that certificates issued together are not renewed together.
JITTER = 0.02
#: Seconds before the first four retries, for a lifetime of `NOMINAL`; after that, daily.
RETRIES = (60.0, 600.0, 6000.0, 86400.0)
NOMINAL = 90 * 86400.0
#: Minimum seconds between retries, however short the lifetime, to protect a CA in trouble.
MIN_RETRY = 1.0
#: Longest Retry-After, in seconds, that is honoured (RFC 9773 section 4.3.2 has the same bound).
MAX_RETRY_AFTER = 86400.0
#: Share of the lifetime between the time of renewal and the alarm, which leaves room for several retries; and its
#: minimum in seconds, which an order over a slow link takes.
GRACE, MIN_GRACE = 0.05, 1.5
#: Minimum time between two successful renewals, as a share of the validity, whatever the clock says.
MIN_GAP = 0.1
#: How far our clock may be off from the CA's: a share of the lifetime, bounded in seconds.  An HTTP date has a resolution
#: of one second, and Kerberos tolerates five minutes.
SKEW_SHARE, MIN_SKEW, MAX_SKEW = 0.01, 1.5, 300.0


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule by which a service schedules renewals; drills change it."""

    #: Share of the lifetime at which to renew; None chooses it by the nominal lifetime.
    renew_at: float | None = None
    #: Nominal seconds per real second.
    scale: float = 1.0

    def __str__(self) -> str:
        words = [f"runs {self.scale:,.0f} times faster"] if self.scale != 1 else []
        if self.renew_at is not None:
            words.append(f"renews at {self.renew_at:.0%} of the lifetime")
        return " and ".join(words) or "is set by hand"

    def changed(self, body: object) -> tuple["Rule", int | None]:
        """Return this rule changed by *body* (JSON), and the seed for the jitter, if one is given.

        Raises:
            ValueError: the body is invalid.
        """
        if not isinstance(body, dict) or set(body) - {"scale", "renew_at", "seed"}:
            raise ValueError(f"expected scale, renew_at and seed at most, got {body!r}"[:200])
        scale, share = body.get("scale", self.scale), body.get("renew_at", self.renew_at)
        if not _number(scale) or not 1 <= scale <= 1e8:
            raise ValueError(f"expected scale (nominal seconds in one) from 1 to 1e8, got {scale!r}")
        if share is not None and (not _number(share) or not 0.1 <= share <= 0.99):
            raise ValueError(f"expected renew_at (share of life) from 0.1 to 0.99, or null; got {share!r}")
        if "seed" in body and not isinstance(body["seed"], int):
            raise ValueError(f"expected seed to be a whole number, got {body['seed']!r}")
        return Rule(share, float(scale)), body.get("seed")


def renewal_time(
    issued: float, not_after: float, rng: random.Random, fraction: float | None = None, scale: float = 1.0
) -> float:
    """Return when to renew a certificate that was issued at *issued* and expires at *not_after*.

    Args:
        issued: not the backdated notBefore: nominal life begins when the certificate is in hand.
        not_after: end of life.
        rng: spreads renewals by up to `JITTER` of the lifetime.
        fraction: of the lifetime; None follows its nominal length.
        scale: nominal seconds in one second.
    """
    lifetime = not_after - issued
    if fraction is None:
        fraction = SHORT_FRACTION if lifetime * scale < SHORT_LIFETIME else LONG_FRACTION
    return issued + lifetime * (fraction + rng.uniform(-JITTER, JITTER))


def retry_delay(failures: int, lifetime: float, rng: random.Random) -> float:
    """Return seconds until the next try after *failures* (at least one) failures in a row.

    The steps shrink with the lifetime, never below `MIN_RETRY`, and are spread by a quarter.
    """
    step = RETRIES[min(failures, len(RETRIES)) - 1] * min(1.0, lifetime / NOMINAL)
    # With a short lifetime, all scaled steps are below a second, so double the delay instead.
    return max(step, min(MIN_RETRY * 2.0 ** (failures - 1), lifetime / 10, 30.0), MIN_RETRY) * rng.uniform(1.0, 1.25)


def overdue(due: float, lifetime: float) -> float:
    """Return when a renewal that was due at *due* becomes an alarm."""
    return due + max(GRACE * lifetime, MIN_GRACE)


def tolerated_skew(lifetime: float) -> float:
    """Return by how many seconds our clock may differ from the CA's before it is an alarm."""
    return min(MAX_SKEW, max(MIN_SKEW, SKEW_SHARE * lifetime))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
