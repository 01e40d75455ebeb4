"""Load shapes for Locust: the number of users as a function of time, from `generator.schedule`.

Locust's own fields give the peak (number of users) and the length (run time).  A constant arrival rate is not a shape:
use ``--arrival-rate``, which makes each user a source of arrivals.
"""

from locust import LoadTestShape

from generator import Shape, ramp, spike, step

#: Length of a shape in seconds without a run time.
LENGTH = 60.0
#: Users at the peak without a number of users.
PEAK = 10
#: Users started or stopped per second: practically at once, since the shape gives the number.
SPAWN_RATE = 1000.0


class _Users(LoadTestShape):
    abstract = True
    use_common_options = True

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        raise NotImplementedError

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users now and the spawn rate; None at the end."""
        options = self.runner.environment.parsed_options if self.runner is not None else None
        shape = self.users(float(getattr(options, "num_users", None) or PEAK), _seconds(options))
        at = self.get_run_time()
        return None if at >= shape.seconds else (max(1, round(shape.rate(at))), SPAWN_RATE)


class Ramp(_Users):
    """A linear ramp from one user to the peak."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return ramp(1, peak, seconds)


class Step(_Users):
    """A quarter, half, three quarters, then all of the users."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return step(*((peak * quarter / 4, seconds / 4) for quarter in (1, 2, 3, 4)))


class Spike(_Users):
    """A tenth of the users, and all of them during the middle fifth of the time."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return spike(peak / 10, peak, seconds * 0.4, seconds * 0.2, seconds)


def _seconds(options: object) -> float:
    return float(getattr(options, "run_time", None) or LENGTH)


SHAPES: dict[str, type[_Users]] = {"ramp": Ramp, "step": Step, "spike": Spike}
