"""Tests for connection churn, directly and through the agent."""

import asyncio

import pytest

from telemetry import AdminError, Telemetry
from waterfall.agent import Agent
from waterfall.churn import NO_PORT, Churn, cause, churn


async def test_attempts_are_returned_with_their_intended_starts():
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        to = server.sockets[0].getsockname()
        attempts = await churn(Churn(to, 200, 0.1, (40_000, 40_999), ["127.0.0.1", "127.0.0.2"]))
    assert [each.intended for each in attempts] == pytest.approx([n / 200 for n in range(20)])
    assert {each.error for each in attempts} == {""}


async def test_a_window_of_one_port_carries_one_connection_at_a_time():
    gate = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        to = server.sockets[0].getsockname()
        # The first connection occupies the only port.  It is in TIME-WAIT, or in FIN-WAIT-2 while the server keeps its
        # end open.
        attempts = await churn(Churn(to, 100, 0.1, (41_000, 41_000)))
        gate.set()
    assert attempts[0].error == ""
    assert {each.error for each in attempts[1:]} == {NO_PORT}


async def test_a_refused_connection_is_not_reported_as_lack_of_ports():
    (attempt,) = await churn(Churn(("127.0.0.1", 1), 1, 1, (42_000, 42_010)))
    assert attempt.error == "Connection refused"
    assert cause(TimeoutError()) == "timeout"


WELL = {"address": "198.19.20.10", "port": 80, "rate": 96, "seconds": 12, "ports": [33_000, 33_023], "sources": 2}


def test_a_churn_request_is_parsed():
    agent = Agent(Telemetry("test"), None, "", ["198.19.1.10", "198.19.1.11"])
    order = agent._ordered(WELL)
    assert order == Churn(("198.19.20.10", 80), 96.0, 12.0, (33_000, 33_023), ("198.19.1.10", "198.19.1.11"))
    assert agent._ordered({**WELL, "sources": 0}).sources == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param({"address": None}, 'expected {"address"', id="address"),
        pytest.param({"rate": 5000}, "expected rate from 1 to 1000, got 5000", id="rate"),
        pytest.param({"seconds": True}, "expected seconds from 1 to 600, got True", id="seconds"),
        pytest.param({"ports": [9, 8]}, "expected ports as .first, last.", id="ports"),
        pytest.param({"sources": 3}, "expected sources from 0 to 2, got 3", id="sources"),
    ],
)  # fmt: skip
def test_a_malformed_churn_request_says_what_was_expected(more, message):
    agent = Agent(Telemetry("test"), None, "", ["198.19.1.10", "198.19.1.11"])
    with pytest.raises(AdminError, match=message):
        agent._ordered({**WELL, **more})
