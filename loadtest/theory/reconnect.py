"""Model of a reconnect storm: many clients connect simultaneously to a server with a limited rate of handshakes.

The server works through its queue in order.  It does not notice that a client has given up, so the handshake of such a
client is wasted work.  Above the tipping point all its work is wasted, and the storm sustains itself.

Sources: M. Brooker, "Exponential Backoff And Jitter" (2015); N. Bronson et al., "Metastable Failures in Distributed
Systems" (HotOS 2021).
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Storm:
    """Outcome of one storm."""

    #: Time at which each client was connected, in ascending order, in seconds since the storm began.
    connected: tuple[float, ...]
    #: Number of handshakes that the server completed after the client had given up.
    wasted: int

    def until(self, share: float, clients: int) -> float:
        """Return the time until *share* of the clients are connected, in seconds; infinity if they never are."""
        needed = max(1, round(share * clients))
        return self.connected[needed - 1] if len(self.connected) >= needed else float("inf")


def tipping_point(capacity: float, timeout: float, pause: float = 0.0) -> float:
    """Return the largest number of clients with which the server recovers by itself: C(2t + p).

    Before the first time-out the server serves Ct of N clients; the handshakes of the others are wasted and take
    another N/C - t seconds.  The retries, sent at t + p, are wasted too if they are served later than 2t + p.  From
    then on each round adds at least as much work as the server completes.

    Args:
        capacity: C, handshakes per second.
        timeout: t, seconds after which a client gives up.
        pause: p, seconds between giving up and the next attempt.
    """
    return capacity * (2 * timeout + pause)


def storm(
    clients: int,
    capacity: float,
    timeout: float,
    pause: Callable[[int], float],
    until: float,
    *,
    limit: int | None = None,
    refuses: bool = False,
) -> Storm:
    """Simulate every attempt of every client, from the moment at which all of them connect.

    Args:
        clients: number of clients.
        capacity: handshakes per second.
        timeout: seconds after which a client gives up.
        pause: returns the seconds until the next attempt, given the number of failed attempts.
        until: end of the observation, in seconds.
        limit: maximum number of connections in the queue and in service; None: no limit.
        refuses: whether the server refuses further connections immediately; otherwise it drops them silently, and the
            client waits for its time-out.
    """
    attempts = [(0.0, number, 1) for number in range(clients)]
    departures: deque[float] = deque()
    connected, wasted = [], 0
    while attempts and attempts[0][0] < until:
        at, number, attempt = heapq.heappop(attempts)
        while departures and departures[0] <= at:
            departures.popleft()
        failed = at + timeout
        if limit is not None and len(departures) >= limit:
            failed = at if refuses else failed
        else:
            done = max(at, departures[-1] if departures else at) + 1 / capacity
            departures.append(done)
            if done <= failed:
                connected.append(done)
                continue
            wasted += done <= until
        heapq.heappush(attempts, (failed + pause(attempt), number, attempt + 1))
    return Storm(tuple(sorted(each for each in connected if each <= until)), wasted)


def back_off(base: float, longest: float, random: Callable[[], float]) -> Callable[[int], float]:
    """Return exponential back-off with full jitter: a random pause of at most base · 2^(failures - 1) seconds.

    Args:
        base: upper bound of the first pause, in seconds.
        longest: largest upper bound, in seconds.
        random: returns random numbers from 0 to 1.
    """
    return lambda failures: random() * min(longest, base * 2.0 ** (failures - 1))
