"""Decide when to wait for more queries before the next batch, as network devices do with interrupt coalescing.

Many small batches cost more CPU time than a few large ones, above all if the responses of a large batch can be sent as
one message per client (`serving.sending`). The server waits only after it has answered a batch, so a client that sends
one query at a time is not delayed.
"""

#: Time to wait for more queries, in seconds. The kernel may extend it by its timer slack, which is 50 µs by default.
PAUSE = 20e-6
#: Sizes of batches after which waiting can help: at least `SMALL`, because after a smaller batch queries arrive too
#: slowly to form a large one, and less than `LARGE`, because larger batches are large enough already.
SMALL, LARGE = 4, 28
#: After `TRUST` consecutive pauses without a batch that was sent grouped by client, the server skips all but one of
#: `PROBE` pauses. If each client has only one query outstanding, for example, a pause costs more than it saves.
TRUST, PROBE = 8, 64


class Coalescing:
    """Decides about pauses, from the recent batches of one socket."""

    def __init__(self) -> None:
        self._trust, self._turns, self._paused = TRUST, 0, False

    def pauses(self, count: int, *, grouped: bool) -> bool:
        """Return whether to wait after a batch of *count* queries.

        *grouped* is whether the responses of this batch were sent as one message per client.
        """
        if grouped:
            self._trust = TRUST
        elif self._paused:
            self._trust -= self._trust > 0
        self._paused = SMALL <= count < LARGE
        if self._paused and not self._trust:
            self._turns += 1
            self._paused = not self._turns % PROBE
        return self._paused
