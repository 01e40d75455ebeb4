"""State machine of one certificate's renewal: next step and its time (RFC 9773 section 4, RFC 8555 section 6.6).

It does no I/O and reads no clock: the agent reports results (`loaded`, `succeeded`, `failed`, `informed`, `polled`),
and `next` returns the next step.  All times are in seconds since the epoch.
"""

import random
from dataclasses import dataclass
from typing import Literal

from renewal.schedule import MAX_RETRY_AFTER, MIN_GAP, MIN_RETRY, Rule, renewal_time, requested_delay, retry_delay

#: Interval between polls of the CA's renewal information if it does not send Retry-After, in seconds (RFC 9773 section
#: 4.3.3: 6 h).
POLL_INTERVAL = 6 * 3600.0
#: First and maximum delay between attempts to obtain the first certificate, in seconds; they are short, because the
#: service cannot serve without a certificate.
FIRST_ATTEMPT, LAST_ATTEMPT = 0.25, 2.0
#: Tolerance when notAfter of a new certificate is compared with that of the old one, in seconds: both are truncated.
TRUNCATION = 1.0


@dataclass(frozen=True, slots=True)
class Validity:
    """Serial number and times of a certificate in use."""

    #: Serial number, in lower-case hexadecimal.
    serial: str
    #: Time at which the service received the certificate; its lifetime counts from here, not from *not_before*.
    issued: float
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """The CA's suggested renewal window for a certificate (RFC 9773 section 4.2)."""

    start: float
    end: float
    #: Delay until the next poll, in seconds; None if the CA did not send Retry-After.
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The next step and its time *at*: order a new certificate, or poll the renewal information of the current one."""

    at: float
    action: Literal["renew", "poll"]


class Lifecycle:
    """State of one certificate's renewal."""

    def __init__(self, rule: Rule, rng: random.Random) -> None:
        """Begin without a certificate."""
        self.rule, self._rng = rule, rng
        self.held: Validity | None = None
        #: Number of consecutive failures, and the error of the last one.
        self.failures, self.last_error = 0, ""
        #: Time of the scheduled renewal, and time of the next attempt; after a failure, the next attempt is later.
        self.due = self.next_renewal = 0.0
        #: Seconds by which the last scheduled renewal moved notAfter to an earlier time; 0 if notAfter is not earlier.
        self.shortened = 0.0
        self._next_poll = float("inf")
        #: The last processed renewal window: serial number, start and end.  Each window is processed only once.
        self._window: tuple[str, float, float] | None = None
        #: Whether renewal information has moved the scheduled renewal, and the earliest time to which renewal
        #: information may move the next renewal.
        self._moved, self._movable_from = False, float("-inf")

    def __repr__(self) -> str:
        held = self.held.serial[:8] if self.held else "none"
        return f"<Lifecycle {held} due={self.due:.0f} next={self.next_renewal:.0f} failures={self.failures}>"

    def next(self, now: float) -> Step:
        """Return the next step; its time is in the past if the step is overdue.  A due renewal precedes a due poll."""
        renew, poll = Step(self.next_renewal, "renew"), Step(self._next_poll, "poll")
        return renew if renew.at <= max(now, poll.at) else poll

    def loaded(self, held: Validity) -> None:
        """Report that a certificate from disk is in use."""
        self.held, self.shortened = held, 0.0
        self._next_poll = held.issued
        self.schedule()

    def succeeded(self, held: Validity, *, ahead: float = 0.0, deliberate: bool = False) -> None:
        """Report that a new certificate is in use.

        Args:
            held: the new certificate.
            ahead: how far the local clock is ahead of the CA's, in seconds.
            deliberate: whether an operator requested the renewal; then an earlier notAfter raises no alarm.
        """
        before, self.held = self.held, held
        earlier = 0.0 if before is None or deliberate else before.not_after - held.not_after
        self.shortened = earlier if earlier > TRUNCATION else 0.0
        self.failures, self.last_error = 0, ""
        # If the local clock is ahead, a new certificate looks old.  A minimum interval prevents a renewal loop.
        gap = max(MIN_RETRY, MIN_GAP * (held.not_after - held.issued + max(ahead, 0.0)))
        if self._moved:
            self._movable_from = held.issued + gap
        if before is None:
            self._next_poll = held.issued  # the first poll is due immediately; renewals do not change later polls
        self.schedule()
        self.next_renewal = max(self.next_renewal, held.issued + gap)

    def failed(self, now: float, error: str, retry_after: float | None = None) -> float:
        """Report a failed renewal; return the delay until the next attempt, in seconds.

        Args:
            now: time of the failure.
            error: the reason, for health checks and logs.
            retry_after: delay that the CA requests, in seconds.
        """
        self.failures, self.last_error = self.failures + 1, error
        lifetime = self.held.not_after - self.held.issued if self.held else 60.0
        requested = requested_delay(retry_after, self._rng)
        pause = max(retry_delay(self.failures, max(lifetime, 0.0), self._rng), requested)
        self.next_renewal = now + pause
        self._next_poll = max(self._next_poll, now + requested)  # Retry-After also applies to polls
        return pause

    def first_attempt_delay(self, retry_after: float | None = None) -> float:
        """Return the delay until the next attempt to obtain the first certificate, in seconds."""
        delay = min(LAST_ATTEMPT, FIRST_ATTEMPT * 2.0 ** min(self.failures, 8))
        return max(delay, requested_delay(retry_after, self._rng))

    def informed(self, info: RenewalInfo, serial: str, ahead: float = 0.0) -> bool:
        """Schedule the renewal at a random time in the CA's suggested window, if that is before the scheduled time.

        A window in the past means an immediate renewal, for example of a revoked certificate.  A later window is
        ignored to keep the safety margin of the agent's own rule.  If the CA requests two early renewals in succession,
        the second renewal waits for the minimum interval between renewals.

        Args:
            info: the window.
            serial: serial number of the certificate; if it is no longer in use, the window is ignored.
            ahead: how far the local clock is ahead of the CA's, in seconds; the window uses the CA's clock.

        Returns:
            Whether the renewal was moved.
        """
        if self.held is None or serial != self.held.serial or self._window == (serial, info.start, info.end):
            return False  # drawing again at each poll and keeping earlier times would converge on the window's start
        self._window = (serial, info.start, info.end)
        at = max(self._rng.uniform(info.start, info.end) + ahead, self._movable_from)
        if at >= self.next_renewal or self.failures:
            return False
        self.due = self.next_renewal = at
        self._moved = True
        return True

    def polling(self) -> None:
        """Report that a poll has begun."""
        self._next_poll = float("inf")

    def polled(self, now: float, retry_after: float | None = None) -> None:
        """Report the end of a poll, successful or not, and the delay in seconds that the CA requests."""
        self._next_poll = now + min(max(retry_after or POLL_INTERVAL, MIN_RETRY), MAX_RETRY_AFTER)

    def clock_stepped(self, by: float) -> None:
        """Report a clock step of *by* seconds: shift retries and polls, but not the scheduled renewal."""
        if self.failures:
            self.next_renewal += by
        self._next_poll += by

    def change(self, rule: Rule, rng: random.Random | None = None) -> None:
        """Apply a new *rule*, with jitter from *rng* (None: the current generator); reschedule the renewal."""
        self.rule, self._rng = rule, rng or self._rng
        if self.held is not None:
            self.schedule()

    def schedule(self) -> None:
        """Schedule the renewal of the current certificate according to the rule."""
        if self.held is not None:
            self._moved = False
            self.due = self.next_renewal = renewal_time(
                self.held.issued, self.held.not_after, self._rng, self.rule.renew_at, self.rule.scale
            )
