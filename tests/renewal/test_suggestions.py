"""What the CA's renewal information (RFC 9773) changes, and what it does not."""

import asyncio

import pytest

from renewal import AcmeError
from renewal.client import Suggestion
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for
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
    issued = agent._issued
    for _ in range(20):  # the same suggestion again and again is one draw
        agent.suggest(Suggestion(issued + start, issued + end, None), agent.credentials.serial)
        assert at[0] <= agent._due - issued <= at[1]
    assert len({agent._due for _ in range(3)}) == 1


async def test_an_answer_about_a_certificate_that_was_replaced_meanwhile_changes_nothing(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    old, issued = agent.credentials.serial, agent._issued
    await agent.renew()
    due = agent._due
    agent.suggest(Suggestion(issued - 5.0, issued - 4.0, None), old)
    assert (agent._due, agent._next) == (due, due)


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


async def test_renewal_information_that_fails_blocks_nothing(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._directory["renewalInfo"] = lab.directory  # answers, but not with a window
    with pytest.raises(AcmeError, match="malformed"):
        await client.suggestion(agent.credentials.pair.leaf)
    due = agent._due
    agent.start()
    await asyncio.sleep(0.1)  # it asks the CA as soon as it starts, and gets its answer
    await agent.stop()
    assert (agent._due, agent.failures) == (due, 0)
    assert await agent.renew()
