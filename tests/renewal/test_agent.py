"""Tests for the renewal agent with a real CA: obtaining, renewing on time, and reporting failures."""

import asyncio
import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from authority import issue_root, new_key
from renewal import AccountError, Agent, PairError, Reload
from renewal.challenges import Challenges
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for
from tests.waiting import until


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def idle(agent: Agent) -> bool:
    """Return whether *agent* is waiting for its next step, without a renewal or poll in progress."""
    return not agent._lock.locked() and agent.telemetry.clock.time() < agent.lifecycle._next_poll < float("inf")


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
        await until(lambda: idle(agent))
        assert agent.renewals == 1
        # The lifetime is 60 s, so renewal is due 30 s after issuance.
        agent.telemetry.clock.offset = lab.server.telemetry.clock.offset = 32.0
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
    agent.telemetry.clock.offset = 35.0  # the lifetime is 60 s: later than 30 s plus the grace period
    agent.check_health()
    assert "renewal was due" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.clock.offset = 61.0
    agent.check_health()
    assert "expired" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.faults.switch_on("alarm_off", {})
    agent.check_health()
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
    agent.check_health()
    assert agent.telemetry.health.as_dict()["checks"]["clock"]["ok"] is ok
    skew = agent.skew()
    assert skew is not None
    assert abs(skew - offset) < 0.75


@pytest.mark.parametrize(
    ("offset", "tries"),
    [(56.0, 1), (59.0, 1), (3600.0, 1), (-3600.0, 0)],
    ids=["0.93", "0.98", "60-lives", "minus-60-lives"],
)
async def test_a_wrong_clock_never_renews_in_a_loop(lab: Lab, offset: float, tries: int) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.telemetry.clock.offset = offset
    before = agent.renewals + agent.failures
    agent.start()
    try:
        await until(lambda: agent.renewals + agent.failures - before == tries and idle(agent))
        now = agent.telemetry.clock.time()
        assert agent.lifecycle.next(now).at > now + 0.5
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
        await until(lambda: second.lifecycle.last_error)
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


async def test_one_timer_wakes_for_the_renewal_and_for_nothing_else(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    waits: list[float | None] = []
    wait = agent.until_woken

    async def counted(seconds: float | None) -> None:
        waits.append(seconds)
        await wait(seconds)

    agent.until_woken = counted  # type: ignore[method-assign]  # records each wait
    agent.start()
    try:
        await until(lambda: idle(agent))
        asleep = len(waits)
        await asyncio.sleep(0.3)  # an agent that polled would wake up several times in this interval
        assert len(waits) == asleep <= 3
        assert isinstance(waits[-1], float)
        assert 0.5 < waits[-1] <= 30
    finally:
        await agent.stop()


async def test_with_a_full_disk_the_new_pair_serves_from_memory_and_is_stored_later(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    file, first = agent.credentials.file, agent.credentials.serial
    kept = file.read_bytes()
    parts = file.parent, file.parent.with_name("away")
    parts[0].rename(parts[1])
    parts[0].write_text("no folder, so that writing fails even for root")
    second = await agent.renew()
    assert agent.credentials.serial == second != first
    assert len(lab.server.store.certificates()) == 3  # two of the agent, and the CA's own certificate
    assert [alarm.partition(":")[0] for alarm in agent.describe()["alarms"]] == ["file"]
    parts[0].unlink()
    parts[1].rename(parts[0])
    assert file.read_bytes() == kept
    assert agent.credentials.save()
    assert agent.describe()["alarms"] == []
    assert agent_for(lab).credentials.load(["www.example.com"], agent.telemetry.clock.time())


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o777])
async def test_a_private_key_that_others_can_read_does_not_stay_so(lab: Lab, mode: int) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    file = agent.credentials.file
    file.chmod(mode)
    stale = file.with_name(f".{file.name}.{os.getpid()}")  # temporary file of an interrupted write
    stale.write_bytes(b"")
    stale.chmod(0o666)
    again = agent_for(lab)
    await again.obtain()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(mode)
    await again.renew()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nonsense", "expected an unencrypted P-256 key"),
        (pem(rsa.generate_private_key(65537, 2048)), "got a key of the kind RSAPrivateKey"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "got a key of the kind EC"),
        (pem(new_key(), b"passphrase"), "Password was not given"),
    ],
    ids=["nonsense", "rsa", "p-384", "encrypted"],
)
async def test_an_account_key_that_is_not_known_is_refused_and_kept(lab: Lab, content: bytes, reason: str) -> None:
    agent = agent_for(lab)
    file = agent.settings.tls_dir / "account.pem"
    file.write_bytes(content)
    with pytest.raises(AccountError, match=reason):
        await agent.renew()
    assert file.read_bytes() == content
    assert "move the file away" in agent.lifecycle.last_error


async def test_a_second_root_is_trusted_while_the_agent_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    before, reloads = agent.credentials.client_context(), list[Reload]()
    agent.credentials.on_change(reloads.append)
    assert not agent.credentials.follow_trust()
    root = issue_root(new_key(), "root B", agent.telemetry.clock.time()).public_bytes(Encoding.PEM)
    one = lab.trust.read_bytes()
    lab.trust.write_bytes(b"half a certificate")
    assert not agent.credentials.follow_trust()
    lab.trust.write_bytes(one + root)
    monkeypatch.setattr("renewal.agent.MAX_SLEEP", 0.05)
    agent.start()
    try:
        await until(lambda: reloads)
    finally:
        await agent.stop()
    assert agent.credentials.client_context() is not before
    assert len(agent.credentials.client_context().get_ca_certs()) == 2
    await agent.renew()
    assert len(agent._acme_client().trust.get_ca_certs()) == 2


async def test_at_boot_the_agent_never_gives_up(lab: Lab) -> None:
    agent = agent_for(lab)
    agent.lifecycle.failures = 5000  # as many as in an outage of several hours
    lab.server.telemetry.faults.switch_on("acme_503", {"retry_after": 0})
    obtaining = asyncio.create_task(agent.obtain())
    await until(lambda: agent.failures)
    lab.server.telemetry.faults.clear()
    await asyncio.wait_for(obtaining, 10)
    assert agent.credentials.ready
