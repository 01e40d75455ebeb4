"""Tests for combining responses into one message (UDP_SEGMENT): each client still gets separate datagrams."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

import serving
from dnsmessage import encode_opt
from serving import batch, sending
from tests.serving.test_batch import Site, numbered, query

#: Socket option that makes a socket receive several datagrams as one message (udp(7)), and socket option that disables
#: UDP checksums.
UDP_GRO, SO_NO_CHECK = 104, 11

pytestmark = pytest.mark.skipif(not batch.available(), reason="this system has no recvmmsg")


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"], ids=["one-address", "all-addresses"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Site, serving.Listener]]:
    site = Site()
    listener = await serving.start((request.param, 0), site.handle, finished=site)
    yield site, listener
    await listener.close()


def wires_of(kind: str) -> list[bytes]:
    names = {"same size": "h1{}", "sizes": "h{}", "mx": "mx{}", "missing": "x{}", "mixed": "{}"}[kind]
    numbers = [random.randrange(10) if kind == "same size" else random.randrange(60) for _ in range(32)]
    if kind == "mixed":
        return [query(f"{random.choice(['h', 'x', 'mx'])}{i}.example.", 1, encode_opt()) for i in numbers]
    return [query(f"{names.format(i)}.example.", 15 if kind == "mx" else 1, encode_opt()) for i in numbers]


@pytest.mark.parametrize("clients", [1, 3, 9, 32])
@pytest.mark.parametrize("kind", ["same size", "sizes", "mx", "missing", "mixed"])
async def test_every_client_gets_its_own_responses(
    site: tuple[Site, serving.Listener], kind: str, clients: int
) -> None:
    server, listener = site
    random.seed(3)
    wires, loop = numbered(wires_of(kind)), asyncio.get_running_loop()
    for _ in range(2):  # in the second round, the listener sends prepared responses
        with ExitStack() as stack:
            socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(clients)]
            for number, sock in enumerate(socks):
                sock.setblocking(False)
                host = listener.address[0] if listener.address[0] != "0.0.0.0" else f"127.0.0.{1 + number % 3}"
                sock.connect((host, listener.address[1]))  # only replies from this address are received
            for place, wire in enumerate(wires):
                socks[place % clients].send(wire)
            for number, sock in enumerate(socks):
                expected = [server.responder._decoded(wire, udp=True).wire for wire in wires[number::clients]]
                async with asyncio.timeout(5):
                    received = [await loop.sock_recv(sock, 65_535) for _ in expected]
                assert sorted(received) == sorted(expected)
    assert listener.dropped == 0


async def test_responses_of_one_size_to_one_socket_leave_as_one_message(site: tuple[Site, serving.Listener]) -> None:
    _, listener = site
    loop, wires = asyncio.get_running_loop(), numbered([query(f"h1{i % 10}.example.") for i in range(16)])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sock.setblocking(False)
        sock.connect(("127.0.0.1", listener.address[1]))
        for wire in wires:
            sock.send(wire)
        readable = asyncio.Event()
        loop.add_reader(sock, readable.set)
        async with asyncio.timeout(5):
            await readable.wait()
        loop.remove_reader(sock)
        data, ancillary, _, _ = sock.recvmsg(65_535, 64)
    size = len(wires[0]) + 16
    assert [data[at : at + 2] for at in range(0, len(data), size)] == [wire[:2] for wire in wires]
    assert ancillary == [(socket.IPPROTO_UDP, UDP_GRO, struct.pack("i", size))]


async def test_responses_leave_one_by_one_if_the_kernel_rejects_the_message(
    site: tuple[Site, serving.Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, listener = site
    assert listener._batch is not None
    listener._udp.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # without checksums, the kernel rejects segmentation
    rejected = 0
    push = sending.Sender._push

    def counted(sender: sending.Sender, at: int, count: int) -> int:
        nonlocal rejected
        sent = push(sender, at, count)
        rejected += not sent
        return sent

    monkeypatch.setattr(sending.Sender, "_push", counted)
    wires = numbered([query(f"h{i}.example.") for i in range(32)])
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", listener.address[1]))
        for wire in wires:
            sock.send(wire)
        async with asyncio.timeout(5):
            received = {(await loop.sock_recv(sock, 65_535))[:2] for _ in wires}
    assert received == {wire[:2] for wire in wires}
    assert rejected > 0
    assert listener.dropped == 0
