"""Tests for the effects of the CA's renewal information (RFC 9773) on the renewal schedule."""

import asyncio
from typing import NoReturn

import pytest
from cryptography import x509

from renewal import AcmeError
from renewal.lifecycle import RenewalInfo
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for, issued_at
from tests.waiting import until


@pytest.mark.parametrize(
    ("start", "end", "at"),
    [(10.0, 12.0, (10.0, 12.0)), (-5.0, -4.0, (-5.0, -4.0)), (50.0, 55.0, (28.0, 32.5))],
    ids=["earlier", "at-once", "later-than-our-own-rule"],
)
async def test_the_ca_may_ask_for_an_earlier_renewal(
    lab: Lab, start: float, end: float, at: tuple[float, float]
) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    issued = issued_at(agent)
    dues = set()
    for _ in range(20):
        agent.lifecycle.informed(RenewalInfo(issued + start, issued + end, None), agent.credentials.serial)
        dues.add(agent.lifecycle.due)
    (due,) = dues  # a repeated suggestion does not change the time
    assert at[0] <= due - issued <= at[1]


async def test_renewal_info_for_a_replaced_certificate_changes_nothing(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    old, issued = agent.credentials.serial, issued_at(agent)
    await agent.renew()
    due = agent.lifecycle.due
    agent.lifecycle.informed(RenewalInfo(issued - 5.0, issued - 4.0, None), old)
    assert (agent.lifecycle.due, agent.lifecycle.next_renewal) == (due, due)
    agent.lifecycle.informed(RenewalInfo(issued - 5.0, issued - 4.0, None), agent.credentials.serial)
    assert agent.lifecycle.due == agent.lifecycle.next_renewal < issued


async def test_a_revoked_certificate_is_renewed_at_once(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    lab.server.store.revoke(first, agent.telemetry.clock.time(), 1)
    agent.start()
    try:
        await until(lambda: agent.credentials.serial != first)
    finally:
        await agent.stop()
    assert agent.failures == 0


async def test_malformed_renewal_info_does_not_stop_renewals(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client, failed = agent._acme_client(), asyncio.Event()
    ask = client.renewal_info

    async def ask_the_wrong_url(leaf: x509.Certificate) -> NoReturn:
        client._directory["renewalInfo"] = f"{lab.directory}?"  # the response does not contain a window
        with pytest.raises(AcmeError, match="malformed: expected suggestedWindow") as refused:
            await ask(leaf)
        failed.set()
        raise refused.value

    client.renewal_info = ask_the_wrong_url  # type: ignore[method-assign]  # the test's CA cannot send a malformed window
    first, due = agent.credentials.serial, agent.lifecycle.due
    agent.start()
    try:
        await asyncio.wait_for(failed.wait(), 5)
        assert (agent.lifecycle.due, agent.failures) == (due, 0)
        # The lifetime is 60 s, so renewal is overdue 35 s after issuance.
        agent.telemetry.clock.offset = lab.server.telemetry.clock.offset = 35.0
        await until(lambda: agent.credentials.serial != first)
    finally:
        await agent.stop()
