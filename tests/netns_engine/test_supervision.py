"""Tests for start order, health and restarts of hosts; the time is an argument."""

import ipaddress

import pytest

from netns_engine.compose import HealthCheck, Service
from netns_engine.supervision import MAX_PAUSE, Abandon, Check, Kill, Start, State, Supervision

CHECK = HealthCheck(("probe",), interval=30, timeout=5, retries=2, start_period=20, start_interval=1)


def service(
    name: str, *, after: tuple[tuple[str, str], ...] = (), health: HealthCheck | None = CHECK, restart: bool = True
) -> Service:
    return Service(
        name=name, line=1, argv=("run",), entrypoint=0, user=None, environment=(), mounts=(), tmpfs=(), read_only=True,
        networked=True, address=ipaddress.IPv4Address("198.19.1.10"), ports=(), sysctls=(), devices=(),
        depends_on=after, health=health, restart=restart, profiles=(), memory=None, pids=None,
        grace=12.0, capabilities=(), log_size=1000, log_files=1,
    )  # fmt: skip


def running(*services: Service, now: float = 0.0) -> Supervision:
    """Return the supervision of a lab whose hosts were all started at *now*."""
    lab = Supervision(services)
    for action in lab.due(now):
        lab.started(action.host, now)
    return lab


def test_a_host_waits_for_what_it_depends_on() -> None:
    lab = Supervision((
        service("ceremony", health=None, restart=False),
        service("ca", after=(("ceremony", "service_completed_successfully"),)),
        service("edge", after=(("ca", "service_healthy"),)),
    ))  # fmt: skip
    assert lab.due(0) == [Start("ceremony")]
    lab.started("ceremony", 0)
    assert lab.due(0.1) == []
    lab.exited("ceremony", 0, 0.5)
    assert lab.due(0.5) == [Start("ca")]
    lab.started("ca", 0.5)
    assert lab.due(1.5) == [Check("ca")]
    lab.checked("ca", 1.6, well=True)
    assert lab.due(1.6) == [Start("edge")]


def test_a_failed_one_shot_blocks_its_dependents_and_is_not_repeated() -> None:
    lab = Supervision((
        service("ceremony", health=None, restart=False),
        service("ca", after=(("ceremony", "service_completed_successfully"),)),
    ))  # fmt: skip
    lab.due(0)
    lab.started("ceremony", 0)
    lab.exited("ceremony", 1, 0.5)
    assert lab.due(1000) == []
    assert repr(lab) == "<Supervision 1 created, 1 exited>"


def test_failed_checks_count_only_after_the_start_period() -> None:
    lab = running(service("edge"))
    for now in range(1, 20):
        assert lab.due(now) == [Check("edge")], now
        lab.checked("edge", now, well=False)
    assert lab.members["edge"].health == "starting"
    for now in (20, 50):
        assert lab.due(now) == [Check("edge")], now
        lab.checked("edge", now, well=False)
    assert lab.members["edge"].health == "unhealthy"


def test_haste_divides_only_the_interval_at_start() -> None:
    lab = Supervision((service("edge"),), haste=5)
    lab.due(0)
    lab.started("edge", 0)
    assert lab.next_due() == pytest.approx(0.2)
    lab.due(0.2)
    lab.checked("edge", 0.2, well=True)
    assert lab.next_due() == pytest.approx(30.2)


def test_a_check_that_times_out_is_abandoned_and_counts_as_failed() -> None:
    lab = running(service("edge"))
    lab.due(1)
    lab.checked("edge", 1, well=True)
    assert lab.due(31) == [Check("edge")]
    assert lab.due(36) == [Abandon("edge")]
    lab.checked("edge", 36.1, well=True)  # late result of the check that has already timed out
    assert lab.members["edge"].failed_checks == 1
    assert lab.members["edge"].health == "healthy"


def test_the_pause_before_a_restart_doubles() -> None:
    lab = running(service("edge"))
    now, pauses = 0.0, []
    for _ in range(12):
        lab.exited("edge", 1, now)
        at = lab.next_due()
        assert at is not None
        assert lab.due(at - 0.01) == []
        pauses.append(at - now)
        now = at
        assert lab.due(now) == [Start("edge")]
        lab.started("edge", now)
    assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert pauses[-1] == MAX_PAUSE
    lab.exited("edge", 1, now + 10)  # ten seconds of uptime, which resets the restart pause
    assert lab.next_due() == pytest.approx(now + 10.1)


def test_a_stopped_host_is_not_restarted() -> None:
    lab = running(service("edge"))
    assert lab.stop("edge", 5.0)
    assert lab.due(16.9) == []
    assert lab.due(17.0) == [Kill("edge")]
    lab.exited("edge", 137, 17.1)
    assert lab.due(1000) == []
    assert (lab.members["edge"].state, lab.members["edge"].exit_code) == (State.EXITED, 137)
    lab.start("edge")
    assert lab.due(1000) == [Start("edge")]


def test_stopping_during_the_pause_before_a_restart_cancels_it() -> None:
    lab = running(service("edge"))
    lab.exited("edge", 1, 1.0)
    assert not lab.stop("edge", 1.05)
    assert lab.due(1000) == []


def test_a_paused_host_is_not_checked_until_it_is_resumed() -> None:
    lab = running(service("edge"))
    lab.pause("edge")
    assert lab.due(1000) == []
    assert lab.next_due() is None
    lab.resume("edge", 1000)
    assert lab.due(1000) == [Check("edge")]


def test_a_host_that_the_machine_cannot_start_is_not_tried_again() -> None:
    lab = Supervision((service("wan"),))
    lab.due(0)
    lab.failed("wan", "sysctl net.ipv4.ip_forward=1: Read-only file system")
    assert lab.due(1000) == []
    assert lab.members["wan"].failure.startswith("sysctl net.ipv4.ip_forward")


def test_adding_a_profile_does_not_restart_running_hosts() -> None:
    lab = running(service("edge"))
    lab.add((service("edge"), service("locust", after=(("edge", "service_started"),))))
    assert lab.due(0.5) == [Start("locust")]
