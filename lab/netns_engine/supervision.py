"""Start order, health checks and restarts of all hosts, as a sans-IO state machine.

`Supervision.due()` returns the actions that are due; `netns_engine.supervisor` performs them and reports the results.
The rules are Docker's: a host starts after its dependencies.  It is healthy after one passed check, and unhealthy after
`retries` failed checks outside its start period.  It restarts after a pause that doubles each time, unless a user
stopped it.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from netns_engine.compose import HealthCheck, Service

#: Pause before the first restart, maximum pause (each restart doubles the pause), and uptime that resets the pause, in
#: seconds.
FIRST_PAUSE, MAX_PAUSE, SETTLED = 0.1, 60.0, 10.0


class State(StrEnum):
    """State of a host, in Docker's terms if Docker has one."""

    WAITING = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Start:
    """Start the host, then call `started()` or `failed()`."""

    host: str


@dataclass(frozen=True, slots=True)
class Check:
    """Run the host's health check, then call `checked()`."""

    host: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Kill the running health check, which has timed out."""

    host: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to the host, whose grace period has expired."""

    host: str


Action = Start | Check | Abandon | Kill


@dataclass(slots=True)
class Member:
    """Current state of one host."""

    service: Service
    state: State = State.WAITING
    #: Health: healthy, unhealthy, starting, or "" if the host has no health check or no process.
    health: str = ""
    exit_code: int | None = None
    restarts: int = 0
    #: Reason why the machine could not start the host; "" if there was no failure.
    failure: str = ""
    started_at: float = 0.0
    pause: float = FIRST_PAUSE
    #: Time of the next restart; None if no restart is scheduled.
    restart_at: float | None = None
    #: Time at which SIGKILL is sent; None if no SIGKILL is scheduled.
    kill_at: float | None = None
    #: Time of the next health check; None if no check is scheduled.
    check_at: float | None = None
    #: Time at which the running health check times out; None if no check is running.
    check_until: float | None = None
    failed_checks: int = 0


class Supervision:
    """State machine for all hosts of a lab.

    Args:
        services: the service of each host.
        haste: divisor for the health-check interval while a host starts.
    """

    def __init__(self, services: tuple[Service, ...], *, haste: float = 1.0) -> None:
        self._haste = haste
        self.members = {service.name: Member(service) for service in services}

    def __repr__(self) -> str:
        states = Counter(m.health or m.state for m in self.members.values())
        return f"<Supervision {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}>"

    def add(self, services: tuple[Service, ...]) -> None:
        """Add services, ignoring those that were already added."""
        for service in services:
            self.members.setdefault(service.name, Member(service))

    def forget(self, host: str) -> None:
        """Remove *host*, whose process must have ended."""
        del self.members[host]

    # --- actions ------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Action]:
        """Return the actions that are due at *now*; each action is returned once."""
        actions: list[Action] = []
        for name, member in self.members.items():
            if (member.state is State.WAITING and self._may_start(member)) or _reached(member.restart_at, now):
                member.state, member.restart_at = State.RUNNING, None
                actions.append(Start(name))
            elif _reached(member.kill_at, now):
                member.kill_at = None
                actions.append(Kill(name))
            elif _reached(member.check_until, now):
                member.check_until = None
                actions.append(Abandon(name))
                self._judge(member, well=False, now=now)
            elif member.state is State.RUNNING and _reached(member.check_at, now) and member.service.health:
                member.check_at, member.check_until = None, now + member.service.health.timeout
                actions.append(Check(name))
        return actions

    def next_due(self) -> float | None:
        """Return the time to call `due()` again unless an event is reported earlier; None if nothing is scheduled."""
        times = [
            at
            for m in self.members.values()
            for at in (m.restart_at, m.kill_at, m.check_until, m.check_at if m.state is State.RUNNING else None)
            if at is not None
        ]
        return min(times, default=None)

    # --- events -------------------------------------------------------------------------------------------------------

    def started(self, host: str, now: float) -> None:
        """Record that *host* now has a process."""
        member = self.members[host]
        # Keep the last exit code until this run ends, because `up` may request it during a restart.
        member.state, member.started_at, member.failure = State.RUNNING, now, ""
        member.failed_checks, member.check_until = 0, None
        check = member.service.health
        member.health = "starting" if check else ""
        member.check_at = now + self._pause(check, young=check.start_period > 0) if check else None

    def failed(self, host: str, why: str) -> None:
        """Record that the machine could not start *host*, for the reason *why*; the start is not retried."""
        member = self.members[host]
        _end(member, State.EXITED)
        member.failure, member.exit_code = why, None

    def exited(self, host: str, code: int, now: float) -> None:
        """Record that the process of *host* has ended; *code* is its exit code, or 128 + the number of the signal."""
        member = self.members[host]
        stopped = member.state is State.STOPPING
        lived = now - member.started_at
        _end(member, State.EXITED)
        member.exit_code = code
        if member.service.restart and not stopped:
            pause = FIRST_PAUSE if lived >= SETTLED else member.pause
            member.state, member.restart_at, member.restarts = State.RESTARTING, now + pause, member.restarts + 1
            member.pause = min(pause * 2, MAX_PAUSE)

    def checked(self, host: str, now: float, *, well: bool) -> None:
        """Record the result of a health check; *well* is true if it passed."""
        member = self.members[host]
        if member.check_until is not None:  # otherwise the check has timed out or its host has ended
            member.check_until = None
            self._judge(member, well=well, now=now)

    # --- user requests ------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* unless it is already running."""
        member = self.members[host]
        if member.state in {State.EXITED, State.RESTARTING}:
            member.state, member.restart_at, member.pause = State.WAITING, None, FIRST_PAUSE

    def stop(self, host: str, now: float, *, grace: float | None = None) -> bool:
        """Stop *host* permanently; return whether it has a process, which the caller must then signal."""
        member = self.members[host]
        if member.state in {State.RUNNING, State.PAUSED, State.STOPPING}:
            grace = member.service.grace if grace is None else grace
            member.state, member.check_at, member.kill_at = State.STOPPING, None, now + grace
            return True
        _end(member, State.EXITED)
        return False

    def pause(self, host: str) -> None:
        """Record that *host* is paused, which suspends its health checks."""
        self.members[host].state, self.members[host].check_until = State.PAUSED, None

    def resume(self, host: str, now: float) -> None:
        """Record that *host* was resumed, and schedule an immediate health check."""
        member = self.members[host]
        member.state, member.check_at = State.RUNNING, now if member.service.health else None

    # --- internals ----------------------------------------------------------------------------------------------------

    def _may_start(self, member: Member) -> bool:
        return all(self._met(self.members[other], condition) for other, condition in member.service.depends_on)

    @staticmethod
    def _met(member: Member, condition: str) -> bool:
        if condition == "service_completed_successfully":
            return member.state is State.EXITED and member.exit_code == 0
        if condition == "service_healthy":
            return member.health == "healthy"
        return member.state is State.RUNNING

    def _judge(self, member: Member, *, well: bool, now: float) -> None:
        check = member.service.health
        if check is None:
            return
        young = now < member.started_at + check.start_period
        if well:
            member.health, member.failed_checks = "healthy", 0
        elif member.health != "starting" or not young:
            member.failed_checks += 1
            if member.failed_checks >= check.retries:
                member.health = "unhealthy"
        member.check_at = now + self._pause(check, young=member.health == "starting" and young)

    def _pause(self, check: HealthCheck, *, young: bool) -> float:
        return check.start_interval / self._haste if young else check.interval


def _end(member: Member, state: State) -> None:
    member.state, member.health = state, ""
    member.restart_at = member.kill_at = member.check_at = member.check_until = None


def _reached(at: float | None, now: float) -> bool:
    return at is not None and at <= now
