"""What the ACME client makes of answers that are odd."""

import time
from email.utils import formatdate

import pytest

from renewal import AcmeError
from renewal.client import retry_after
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for


async def test_answers_of_another_shape_are_the_cas_fault(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._directory = {"newNonce": client._directory["newNonce"]}
    with pytest.raises(AcmeError, match="malformed: KeyError"):
        await agent.renew()
    assert agent.failures == 1
    await agent.renew()  # the directory is read anew


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("-1", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    later = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert later is not None
    assert 98 <= later <= 100
