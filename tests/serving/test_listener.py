"""UDP and TCP at one port."""

import asyncio
import socket
import struct

import pytest

import serving


async def over_tcp(address, *queries: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"".join(struct.pack("!H", len(q)) + q for q in queries))
    answers = []
    for _ in queries:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answers.append(await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()
    return answers


async def over_udp(address, query: bytes, timeout: float = 1.0) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, query)
        return await asyncio.wait_for(loop.sock_recv(sock, 65535), timeout)


async def test_udp_and_tcp_share_a_port_and_pipelined_queries_are_answered_in_order() -> None:
    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: t.encode() + q)
    try:
        assert await over_udp(listener.address, b"one") == b"udpone"
        assert await over_tcp(listener.address, b"a", b"b" * 60000, b"c") == [b"tcpa", b"tcp" + b"b" * 60000, b"tcpc"]
    finally:
        await listener.close()


async def test_a_late_answer_does_not_delay_others() -> None:
    gate = asyncio.Event()

    async def later(query: bytes) -> bytes:
        await gate.wait()
        return query

    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: later(q) if q == b"slow" else q)
    try:
        slow = asyncio.create_task(over_udp(listener.address, b"slow"))
        assert await over_udp(listener.address, b"quick") == b"quick"
        gate.set()
        assert await slow == b"slow"
    finally:
        await listener.close()


async def test_none_drops_the_query() -> None:
    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: None)
    try:
        with pytest.raises(TimeoutError):
            await over_udp(listener.address, b"x", 0.05)
    finally:
        await listener.close()


async def test_an_idle_tcp_connection_is_closed() -> None:
    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: q, tcp_idle=0.05)
    reader, writer = await asyncio.open_connection(*listener.address)
    try:
        assert await asyncio.wait_for(reader.read(), 1.0) == b""
    finally:
        writer.close()
        await writer.wait_closed()
        await listener.close()


async def test_an_address_in_use_is_an_error() -> None:
    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: q)
    try:
        with pytest.raises(OSError, match="in use"):
            await serving.start(listener.address, lambda q, c, t: q)
    finally:
        await listener.close()
