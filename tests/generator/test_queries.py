"""Tests for the DNS load: one UDP socket, several names; a reply with any rcode counts as answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import dnslib
import pytest

from generator import LoadError, Queries, Schedule, constant

Answering = Callable[[bytes], list[bytes]]


class Server(asyncio.DatagramProtocol):
    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.names: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # asyncio's UDP transport lacks this base class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.names.append(str(dnslib.DNSRecord.parse(data).q.qname))
        for reply in self.answering(data):
            self.transport.sendto(reply, addr)


def answer(wire: bytes, rcode: int = 0) -> bytes:
    reply = dnslib.DNSRecord.parse(wire).reply()
    reply.header.rcode = rcode
    return bytes(reply.pack())


@contextlib.asynccontextmanager
async def serving(answering: Answering) -> AsyncIterator[tuple[tuple[str, int], Server]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Server(answering), ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname"), server
    finally:
        transport.close()
        await asyncio.sleep(0)  # the transport is closed in the event loop's next iteration


async def test_every_query_is_answered_and_names_take_turns() -> None:
    async with serving(lambda wire: [answer(wire)]) as (address, server):
        load = Queries(address, [f"n{i}.example.com" for i in range(5)], Schedule(constant(200, 0.2)))
        await load.run()
    assert (load.answered, load.lost, load.stray) == (40, 0, 0)
    assert len(load.latency) == len(load.service_time) == 40
    assert len(set(server.names)) == 5


@pytest.mark.parametrize(("rcode", "name"), [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED"), (13, "RCODE13")])
async def test_every_rcode_counts_as_answered(rcode: int, name: str) -> None:
    async with serving(lambda wire: [answer(wire, rcode)]) as (address, _):
        load = Queries(address, ["x.example.com"], Schedule(constant(100, 0.1)))
        await load.run()
    assert dict(load.rcodes) == {name: 10}
    assert load.lost == 0


@pytest.mark.parametrize(
    ("replies", "stray"),
    [
        pytest.param(lambda wire: [], 0, id="silence"),
        pytest.param(lambda wire: [bytes([wire[0] ^ 1]) + answer(wire)[1:]], 5, id="other-id"),
        pytest.param(lambda wire: [answer(wire).replace(b"example", b"elpmaxe")], 5, id="other-question"),
        pytest.param(lambda wire: [wire], 5, id="echo"),
        pytest.param(lambda wire: [wire[:5]], 5, id="runt"),
    ],
)
async def test_a_reply_to_no_query_is_stray_and_the_query_is_lost(replies: Answering, stray: int) -> None:
    async with serving(replies) as (address, _):
        load = Queries(address, ["x.example.com"], Schedule(constant(50, 0.1)), timeout=0.2)
        await load.run()
    assert dict(load.errors) == {"timeout": 5}
    assert (load.answered, load.stray) == (0, stray)


async def test_a_duplicate_reply_counts_once() -> None:
    async with serving(lambda wire: [answer(wire), answer(wire)]) as (address, _):
        load = Queries(address, ["x.example.com"], Schedule(constant(50, 0.2)))
        await load.run()
    assert load.answered == 10
    assert load.stray >= 9  # the last duplicate may arrive after `run` has returned


async def test_the_order_of_names_is_drawn_from_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        async with serving(lambda wire: [answer(wire)]) as (address, server):
            names = [f"n{i}.example.com" for i in range(20)]
            await Queries(address, names, Schedule(constant(200, 0.2)), seed=seed).run()
            orders.append(server.names)
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("names", [pytest.param([], id="none"), pytest.param(["a..b"], id="empty-label")])
def test_malformed_names_are_refused(names: list[str]) -> None:
    with pytest.raises(LoadError, match="expected"):
        Queries(("127.0.0.1", 53), names, 1.0)
