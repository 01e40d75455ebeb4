"""Tests for published ports, with real sockets; this machine's own network serves as the host's network."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from netns_engine.errors import LabDownError
from netns_engine.forward import Published, _forward


def dial(_host: str, kind: str) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)


def refuse(host: str, _kind: str) -> socket.socket:
    raise LabDownError(f"{host} is exited, expected running")


def bound(kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    sock.setblocking(False)
    return sock


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with bound(request.param) as sock:
        yield sock


@pytest.mark.parametrize("listener", [socket.SOCK_STREAM], indirect=True)
async def test_a_connection_is_carried_both_ways_and_half_closed(listener: socket.socket) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Read until end of file, so that the reply is sent only after the client has closed its side.
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    forwarding = asyncio.create_task(_forward([Published(listener, "edge", server.sockets[0].getsockname()[1])], dial))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"a" * 300_000)
    writer.write_eof()
    assert await reader.read() == b"A" * 300_000
    writer.close()
    forwarding.cancel()
    server.close()


@pytest.mark.parametrize("listener", [socket.SOCK_STREAM], indirect=True)
async def test_a_host_that_is_down_closes_the_connection_at_once(listener: socket.socket) -> None:
    forwarding = asyncio.create_task(_forward([Published(listener, "edge", 443)], refuse))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    assert await reader.read() == b""
    writer.close()
    forwarding.cancel()


@pytest.mark.parametrize("listener", [socket.SOCK_DGRAM], indirect=True)
async def test_each_udp_client_gets_its_own_answer(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with bound(socket.SOCK_DGRAM) as server, bound(socket.SOCK_DGRAM) as one, bound(socket.SOCK_DGRAM) as other:
        forwarding = asyncio.create_task(_forward([Published(listener, "resolver", server.getsockname()[1])], dial))
        await loop.sock_sendto(one, b"one", listener.getsockname())
        await loop.sock_sendto(other, b"other", listener.getsockname())
        asked = [await loop.sock_recvfrom(server, 100) for _ in range(2)]
        assert len({address for _, address in asked}) == 2
        for question, address in reversed(asked):
            await loop.sock_sendto(server, question + b"!", address)
        assert await loop.sock_recv(one, 100) == b"one!"
        assert await loop.sock_recv(other, 100) == b"other!"
        forwarding.cancel()


@pytest.mark.parametrize("listener", [socket.SOCK_DGRAM], indirect=True)
async def test_a_udp_client_that_keeps_its_port_reaches_a_host_that_was_started_anew(listener: socket.socket) -> None:
    """Two ports simulate the host's old and new network namespace; after the restart, the old port is closed."""
    loop = asyncio.get_running_loop()
    before, after = bound(socket.SOCK_DGRAM), bound(socket.SOCK_DGRAM)
    networks = iter([before, after])

    class _Towards(socket.socket):
        """A socket in the host's network: the first instance connects to the old port, the second to the new one."""

        def connect(self, address: object) -> None:
            super().connect(next(networks).getsockname())

    def dial(_host: str, _kind: str) -> socket.socket:
        return _Towards(socket.AF_INET, socket.SOCK_DGRAM)

    with before, after, bound(socket.SOCK_DGRAM) as client:
        forwarding = asyncio.create_task(_forward([Published(listener, "resolver", 53)], dial))
        await loop.sock_sendto(client, b"old", listener.getsockname())
        question, address = await loop.sock_recvfrom(before, 100)
        await loop.sock_sendto(before, question + b"!", address)
        assert await loop.sock_recv(client, 100) == b"old!"
        before.close()
        await loop.sock_sendto(client, b"new", listener.getsockname())
        async with asyncio.timeout(5):
            question, address = await loop.sock_recvfrom(after, 100)
            await loop.sock_sendto(after, question + b"!", address)
            assert await loop.sock_recv(client, 100) == b"new!"
        forwarding.cancel()
