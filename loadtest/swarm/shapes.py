"""Load shapes for Locust: how many users there are, as pure functions of time from `generator.schedule`.

The peak is Locust's own number of users and the length its run time, so that the web page's fields mean what they say.
A constant arrival rate is no shape of users: option ``--arrival-rate`` makes each user a source of arrivals.
"""

from locust import LoadTestShape

from generator import Shape, ramp, spike, step

#: Seconds that a shape takes when no run time was given.
LENGTH = 60.0
#: Users at the peak when none were given.
PEAK = 10
#: Users that start or stop per second: at once, the shape says how many there are.
SPAWN_RATE = 1000.0


class _Users(LoadTestShape):
    abstract = True
    use_common_options = True

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        raise NotImplementedError

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now; None at the end."""
        options = self.runner.environment.parsed_options if self.runner is not None else None
        shape = self.users(float(getattr(options, "num_users", None) or PEAK), _seconds(options))
        at = self.get_run_time()
        return None if at >= shape.seconds else (max(1, round(shape.rate(at))), SPAWN_RATE)


class Ramp(_Users):
    """From one user to the peak in a straight line."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return ramp(1, peak, seconds)


class Step(_Users):
    """A quarter, a half, three quarters, all."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return step(*((peak * quarter / 4, seconds / 4) for quarter in (1, 2, 3, 4)))


class Spike(_Users):
    """A tenth of the peak, and all of it in the middle fifth."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time."""
        return spike(peak / 10, peak, seconds * 0.4, seconds * 0.2, seconds)


def _seconds(options: object) -> float:
    return float(getattr(options, "run_time", None) or LENGTH)


SHAPES: dict[str, type[_Users]] = {"ramp": Ramp, "step": Step, "spike": Spike}
