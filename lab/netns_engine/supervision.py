"""Which host starts when, whether it is well, and when it starts again: the order of the lab, without a process.

Nothing here forks, reads a clock or waits.  `Supervision.due()` says what is to be done now; whoever drives it
(`netns_engine.supervisor`) reports what happened.  The rules are Docker's: a host waits for what it depends on, is healthy
after one good check and unhealthy after `retries` bad ones past its start period, and comes back after a pause that
doubles, unless a person stopped it.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from netns_engine.compose import HealthCheck, Service

#: Seconds before the first restart; doubled by each one, at most `MAX_PAUSE`, from anew after `SETTLED` seconds of life.
FIRST_PAUSE, MAX_PAUSE, SETTLED = 0.1, 60.0, 10.0


class State(StrEnum):
    """What a host does, in Docker's words where Docker has one."""

    WAITING = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Start:
    """Start the host; call `started()` or `exited()`."""

    host: str


@dataclass(frozen=True, slots=True)
class Check:
    """Run the host's health check; call `checked()`.  A running one is to be ended first, it took too long."""

    host: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """End the health check that runs: its time is over."""

    host: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL: the grace period is over."""

    host: str


Action = Start | Check | Abandon | Kill


@dataclass(slots=True)
class Member:
    """One host as it is now."""

    service: Service
    state: State = State.WAITING
    #: healthy, unhealthy, starting, or "" where there is no check, or no process.
    health: str = ""
    exit_code: int | None = None
    restarts: int = 0
    #: Why it could not be started; "" when it could.
    failure: str = ""
    started_at: float = 0.0
    pause: float = FIRST_PAUSE
    #: When something is next to be done: a restart, a kill, a check; None is never.
    restart_at: float | None = None
    kill_at: float | None = None
    check_at: float | None = None
    #: When the check that runs has had its time; None when none runs.
    check_until: float | None = None
    bad_checks: int = 0


class Supervision:
    """The state machine of all hosts.

    Args:
        services: the hosts.
        haste: how many times as often as the compose file says a host is checked while it starts.
    """

    def __init__(self, services: tuple[Service, ...], *, haste: float = 1.0) -> None:
        self._haste = haste
        self.members = {service.name: Member(service) for service in services}

    def __repr__(self) -> str:
        states = Counter(m.health or m.state for m in self.members.values())
        return f"<Supervision {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}>"

    def add(self, services: tuple[Service, ...]) -> None:
        """Take more services in; those that are known already stay as they are."""
        for service in services:
            self.members.setdefault(service.name, Member(service))

    # --- what is to be done -----------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Action]:
        """Return what is to be done now, once."""
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
        """Return when `due()` next has something that no report brings about."""
        times = [
            at
            for m in self.members.values()
            for at in (m.restart_at, m.kill_at, m.check_until, m.check_at if m.state is State.RUNNING else None)
            if at is not None
        ]
        return min(times, default=None)

    @property
    def settled(self) -> bool:
        """Whether every host is as well as it gets: running and healthy, or done with exit code 0."""
        return all(self._good(m) for m in self.members.values())

    # --- what happened ----------------------------------------------------------------------------------------------

    def started(self, host: str, now: float) -> None:
        """*host* has a process."""
        member = self.members[host]
        # How the one before ended stays known until this one ends: `up` may ask while it is being tried again.
        member.state, member.started_at, member.failure = State.RUNNING, now, ""
        member.bad_checks, member.check_until = 0, None
        check = member.service.health
        member.health = "starting" if check else ""
        member.check_at = now + self._pause(check, young=check.start_period > 0) if check else None

    def failed(self, host: str, why: str) -> None:
        """*host* could not be started, and will not be tried again: the reason is the machine's, not the program's."""
        member = self.members[host]
        _end(member, State.EXITED)
        member.failure, member.exit_code = why, None

    def exited(self, host: str, code: int, now: float) -> None:
        """The process of *host* has ended; *code* is its exit code, or 128 + the signal."""
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
        """The health check of *host* has ended."""
        member = self.members[host]
        if member.check_until is not None:  # otherwise it was abandoned, or its host is gone
            member.check_until = None
            self._judge(member, well=well, now=now)

    # --- what a person asks for -------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* again; nothing when it runs."""
        member = self.members[host]
        if member.state in {State.EXITED, State.RESTARTING}:
            member.state, member.restart_at, member.pause = State.WAITING, None, FIRST_PAUSE

    def stop(self, host: str, now: float, *, grace: float | None = None) -> bool:
        """Do not start *host* again; return whether it has a process, which the caller asks to end."""
        member = self.members[host]
        if member.state in {State.RUNNING, State.PAUSED, State.STOPPING}:
            grace = member.service.grace if grace is None else grace
            member.state, member.check_at, member.kill_at = State.STOPPING, None, now + grace
            return True
        _end(member, State.EXITED)
        return False

    def pause(self, host: str) -> None:
        """*host* is frozen: it is not checked."""
        self.members[host].state, self.members[host].check_until = State.PAUSED, None

    def resume(self, host: str, now: float) -> None:
        """*host* goes on."""
        member = self.members[host]
        member.state, member.check_at = State.RUNNING, now if member.service.health else None

    # --- below ------------------------------------------------------------------------------------------------------

    def _may_start(self, member: Member) -> bool:
        return all(self._met(self.members[other], condition) for other, condition in member.service.depends_on)

    @staticmethod
    def _met(member: Member, condition: str) -> bool:
        if condition == "service_completed_successfully":
            return member.state is State.EXITED and member.exit_code == 0
        if condition == "service_healthy":
            return member.health == "healthy"
        return member.state is State.RUNNING

    @staticmethod
    def _good(member: Member) -> bool:
        if member.state is State.EXITED:
            return not member.service.restart and member.exit_code == 0
        return member.state is State.RUNNING and member.health in {"healthy", ""}

    def _judge(self, member: Member, *, well: bool, now: float) -> None:
        check = member.service.health
        if check is None:
            return
        young = now < member.started_at + check.start_period
        if well:
            member.health, member.bad_checks = "healthy", 0
        elif member.health != "starting" or not young:
            member.bad_checks += 1
            if member.bad_checks >= check.retries:
                member.health = "unhealthy"
        member.check_at = now + self._pause(check, young=member.health == "starting" and young)

    def _pause(self, check: HealthCheck, *, young: bool) -> float:
        return check.start_interval / self._haste if young else check.interval


def _end(member: Member, state: State) -> None:
    member.state, member.health = state, ""
    member.restart_at = member.kill_at = member.check_at = member.check_until = None


def _reached(at: float | None, now: float) -> bool:
    return at is not None and at <= now
