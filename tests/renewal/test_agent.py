"""Tests for the renewal agent with a real CA: obtaining, renewing on time, and reporting failures."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from renewal import PairError
from renewal.agent import TICK
from renewal.challenges import Challenges
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for
from tests.waiting import until


async def test_a_pair_is_obtained_kept_and_found_again(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    serial = agent.credentials.serial
    assert agent.credentials.file.stat().st_mode & 0o777 == 0o600
    again = agent_for(lab)
    await again.obtain()
    assert again.credentials.serial == serial
    assert again.renewals == 0
    assert agent.telemetry.health.ok
    assert agent.describe()["seconds_left"] > 50


async def test_a_service_that_is_stopped_before_it_has_a_certificate_ends(lab: Lab) -> None:
    agent = agent_for(lab)
    agent.settings = replace(agent.settings, directory="https://127.0.0.1:1/directory")
    enrolling = asyncio.create_task(agent.enrol())
    await until(lambda: agent.failures)
    assert agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"].startswith("none yet")
    agent.telemetry.stop()
    assert not await enrolling
    assert await agent_for(lab, "other").enrol()


async def test_renewal_happens_at_the_scheduled_point_of_life(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    agent.start()
    try:
        await asyncio.sleep(2.5 * TICK)  # the agent checks twice whether a renewal is due
        assert agent.renewals == 1
        agent.telemetry.clock.offset = lab.server.telemetry.clock.offset = (
            32.0  # of a 60 s lifetime: renewal is due at 30 s
        )
        await until(lambda: agent.renewals != 1)
        assert agent.credentials.serial != first
    finally:
        await agent.stop()


async def test_a_failed_renewal_leaves_the_old_pair_and_raises_the_alarm_in_time(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    serial = agent.credentials.serial
    lab.server.telemetry.faults.switch_on("acme_503", {"retry_after": 7})
    with pytest.raises(Exception, match="503"):
        await agent.renew()
    assert agent.credentials.serial == serial
    assert agent.describe()["next_renewal"] >= agent.telemetry.clock.time() + 6.9
    assert agent.telemetry.health.ok
    agent.telemetry.clock.offset = 35.0  # of a 60 s lifetime: later than 30 s plus the grace period
    agent._check_health()
    assert "renewal was due" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.clock.offset = 61.0
    agent._check_health()
    assert "expired" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.faults.switch_on("alarm_off", {})
    agent._check_health()
    assert agent.telemetry.health.ok


@pytest.mark.parametrize(
    ("offset", "ok"),
    [(0.0, True), (0.9, True), (2.5, False), (-2.5, False), (3600.0, False)],
    ids=["right", "within", "ahead", "behind", "an-hour"],
)
async def test_a_clock_that_differs_from_the_cas_is_an_alarm(lab: Lab, offset: float, ok: bool) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.telemetry.clock.offset = offset
    with contextlib.suppress(PairError):
        await agent.renew()
    agent._check_health()
    assert agent.telemetry.health.as_dict()["checks"]["clock"]["ok"] is ok
    skew = agent.skew()
    assert skew is not None
    assert abs(skew - offset) < 0.75


@pytest.mark.parametrize(
    ("offset", "tries"),
    [(56.0, 1), (59.0, 1), (3600.0, 1), (-3600.0, 0)],
    ids=["0.93", "0.98", "60-lives", "minus-60-lives"],
)
async def test_a_wrong_clock_never_renews_in_a_loop(
    lab: Lab, offset: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.telemetry.clock.offset = offset
    before = agent.renewals + agent.failures
    ticks = 0
    check = agent._check_health

    def counted() -> None:
        nonlocal ticks
        ticks += 1
        check()

    monkeypatch.setattr(agent, "_check_health", counted)  # the agent calls it once per check interval
    agent.start()
    try:
        await until(lambda: ticks >= 8)
        await until(lambda: not agent._lock.locked())
        assert agent.renewals + agent.failures - before == tries
        assert agent.credentials.ready
    finally:
        await agent.stop()


async def test_a_process_that_does_not_renew_uses_the_certificates_of_the_one_that_does(lab: Lab) -> None:
    first, second = agent_for(lab), agent_for(lab)
    second.renews = False
    waiting = asyncio.create_task(second.obtain())
    await first.obtain()
    await asyncio.wait_for(waiting, 5)
    assert (second.credentials.serial, second.renewals) == (first.credentials.serial, 0)
    second.start()
    try:
        renewed = await first.renew()
        await until(lambda: second.credentials.serial == renewed)
        (first.settings.tls_dir / "pair.pem").write_text("not a certificate")
        await until(lambda: second.last_error)
        assert second.credentials.serial == renewed
    finally:
        await second.stop()


def test_processes_that_share_a_folder_answer_the_same_challenges(tmp_path: Path) -> None:
    first, second = Challenges(tmp_path / "challenges"), Challenges(tmp_path / "challenges")
    first.put("token-1", "token-1.thumbprint")
    assert second.answer("token-1") == "token-1.thumbprint"
    first.put("token-1", None)
    assert second.answer("token-1") is None
    (tmp_path / "pair.pem").write_text("key")
    assert second.answer("../pair.pem") is None
