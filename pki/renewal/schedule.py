"""Schedule of renewals and retries (Let's Encrypt's integration guide; RFC 9773 section 4).

Pure functions: times are in seconds since the epoch, and the random number generator is an argument.  Rules in days
apply to the *nominal* lifetime: if a drill scales 47 nominal days to 12 s, the rule for 47 days applies.
"""

import random
from dataclasses import dataclass

#: Nominal lifetime in seconds below which certificates are renewed at 1/2 of the lifetime, otherwise at 2/3.
SHORT_LIFETIME = 10 * 86400.0
SHORT_FRACTION, LONG_FRACTION = 1 / 2, 2 / 3
#: Maximum random shift of a renewal in either direction, as a fraction of the lifetime.  It spreads the renewals of
#: certificates that were issued together.
JITTER = 0.02
#: Delays before the first four retries, in seconds, for a lifetime of `NOMINAL` seconds; later retries are daily.
RETRIES = (60.0, 600.0, 6000.0, 86400.0)
NOMINAL = 90 * 86400.0
#: Minimum delay between retries, in seconds, even for short lifetimes, so that retries do not overload a failing CA.
MIN_RETRY = 1.0
#: Maximum factor by which a delay before a retry is randomly extended.
RETRY_SPREAD = 1.25
#: Maximum number of doublings of the delay, which prevents overflow: an outage of hours causes thousands of failures.
MAX_DOUBLINGS = 10
#: Maximum Retry-After that is honoured, in seconds (the same limit as in RFC 9773 section 4.3.2).
MAX_RETRY_AFTER = 86400.0
#: Delay from the scheduled renewal to the alarm: a fraction of the lifetime, which leaves time for several retries, and
#: its minimum in seconds, which leaves time for an order over a slow link.
GRACE, MIN_GRACE = 0.05, 1.5
#: Minimum time between two successful renewals, as a fraction of the certificate's lifetime.  It prevents renewal loops
#: if the clock is wrong or the CA always suggests an early renewal.
MIN_GAP = 0.1
#: Tolerated clock skew between the host and the CA: a fraction of the lifetime, and its minimum and maximum in seconds.
#: The minimum exceeds the 1 s resolution of HTTP dates; the maximum is five minutes, as in Kerberos.
SKEW_SHARE, MIN_SKEW, MAX_SKEW = 0.01, 1.5, 300.0


@dataclass(frozen=True, slots=True)
class Rule:
    """The renewal rule of a service, which drills can change through the admin port."""

    #: Fraction of the lifetime at which to renew; None selects it by the nominal lifetime.
    renew_at: float | None = None
    #: Nominal seconds per real second.
    scale: float = 1.0

    def __str__(self) -> str:
        words = [f"runs {self.scale:,.0f} times faster"] if self.scale != 1 else []
        if self.renew_at is not None:
            words.append(f"renews at {self.renew_at:.0%} of the lifetime")
        return " and ".join(words) or "is set by hand"

    def changed(self, body: object) -> tuple["Rule", int | None]:
        """Apply the parsed JSON *body* of an admin request to this rule.

        Returns:
            The changed rule, and the seed for the random number generator, or None.

        Raises:
            ValueError: *body* has an unknown member or a value out of range.
        """
        if not isinstance(body, dict) or set(body) - {"scale", "renew_at", "seed"}:
            raise ValueError(f"expected scale, renew_at and seed at most, got {body!r}"[:200])
        scale, share = body.get("scale", self.scale), body.get("renew_at", self.renew_at)
        if not _number(scale) or not 1 <= scale <= 1e8:
            raise ValueError(f"expected scale (nominal seconds per second) from 1 to 1e8, got {scale!r}")
        if share is not None and (not _number(share) or not 0.1 <= share <= 0.99):
            raise ValueError(f"expected renew_at (share of life) from 0.1 to 0.99, or null; got {share!r}")
        if "seed" in body and not isinstance(body["seed"], int):
            raise ValueError(f"expected seed to be a whole number, got {body['seed']!r}")
        return Rule(share, float(scale)), body.get("seed")


def renewal_time(
    issued: float, not_after: float, rng: random.Random, fraction: float | None = None, scale: float = 1.0
) -> float:
    """Return the time at which to renew a certificate, in seconds since the epoch.

    Args:
        issued: time at which the certificate was received, not the backdated notBefore.
        not_after: time of expiry.
        rng: draws the random shift of up to `JITTER` of the lifetime.
        fraction: fraction of the lifetime at which to renew; None selects it by the nominal lifetime.
        scale: nominal seconds per real second.
    """
    lifetime = not_after - issued
    if fraction is None:
        fraction = SHORT_FRACTION if lifetime * scale < SHORT_LIFETIME else LONG_FRACTION
    return issued + lifetime * (fraction + rng.uniform(-JITTER, JITTER))


def retry_delay(failures: int, lifetime: float, rng: random.Random) -> float:
    """Return the delay in seconds until the next attempt, after *failures* (at least one) consecutive failures.

    The delays in `RETRIES` are scaled down for lifetimes below `NOMINAL`, but not below `MIN_RETRY`, and then
    multiplied by a random factor between 1 and 1.25.
    """
    step = RETRIES[min(failures, len(RETRIES)) - 1] * min(1.0, lifetime / NOMINAL)
    # For a short lifetime all scaled delays are below a second, so use exponential back-off instead.
    doubled = MIN_RETRY * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
    return max(step, min(doubled, lifetime / 10, 30.0), MIN_RETRY) * rng.uniform(1.0, RETRY_SPREAD)


def requested_delay(retry_after: float | None, rng: random.Random) -> float:
    """Return the delay in seconds for a Retry-After (in seconds, limited to `MAX_RETRY_AFTER`); 0 if there is none.

    The delay is up to a quarter longer than requested, so that clients that were refused at the same time do not all
    retry at the same time.
    """
    return 0.0 if retry_after is None else min(retry_after, MAX_RETRY_AFTER) * rng.uniform(1.0, RETRY_SPREAD)


def overdue(due: float, lifetime: float) -> float:
    """Return the time from which a renewal that was due at *due* raises an alarm (all times in seconds)."""
    return due + max(GRACE * lifetime, MIN_GRACE)


def tolerated_skew(lifetime: float) -> float:
    """Return the clock skew between host and CA, in seconds, above which an alarm is raised."""
    return min(MAX_SKEW, max(MIN_SKEW, SKEW_SHARE * lifetime))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
