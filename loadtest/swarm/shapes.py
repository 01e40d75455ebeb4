"""Load shapes for Locust: the number of users as a function of time, based on `generator.schedule`.

The peak is Locust's number of users, and the length is its run time.  For a constant arrival rate, use
``--arrival-rate`` instead of a shape: each user then starts requests at that rate.
"""

from locust import LoadTestShape

from generator import Shape, ramp, spike, step

#: Default length of a shape in seconds, if no run time is given.
LENGTH = 60.0
#: Default number of users at the peak, if no number is given.
PEAK = 10
#: Users started or stopped per second; so high that the number of users always follows the shape.
SPAWN_RATE = 1000.0


class _Users(LoadTestShape):
    abstract = True
    use_common_options = True

    def users(self, peak: float, seconds: float) -> Shape:
        """Return the number of users over time, up to *peak*, for a shape of the given length in seconds."""
        raise NotImplementedError

    def tick(self) -> tuple[int, float] | None:
        """Return the current number of users and the spawn rate in users per second; None when the shape has ended."""
        options = self.runner.environment.parsed_options if self.runner is not None else None
        shape = self.users(float(getattr(options, "num_users", None) or PEAK), _seconds(options))
        at = self.get_run_time()
        return None if at >= shape.seconds else (max(1, round(shape.rate(at))), SPAWN_RATE)


class Ramp(_Users):
    """A linear ramp from one user to the peak."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return a ramp in the number of users, from one to *peak* over *seconds*."""
        return ramp(1, peak, seconds)


class Step(_Users):
    """Four steps of equal length: a quarter, half, three quarters, and all of the users."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return four equal steps in the number of users up to *peak*, each a quarter of *seconds* long."""
        return step(*((peak * quarter / 4, seconds / 4) for quarter in (1, 2, 3, 4)))


class Spike(_Users):
    """A tenth of the users, but all of them during the middle fifth of the time."""

    def users(self, peak: float, seconds: float) -> Shape:
        """Return a spike in the number of users, from 40 % to 60 % of *seconds*."""
        return spike(peak / 10, peak, seconds * 0.4, seconds * 0.2, seconds)


def _seconds(options: object) -> float:
    return float(getattr(options, "run_time", None) or LENGTH)


SHAPES: dict[str, type[_Users]] = {"ramp": Ramp, "step": Step, "spike": Spike}
