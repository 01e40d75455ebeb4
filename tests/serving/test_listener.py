"""Tests for the DNS listener on UDP and TCP."""

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


async def test_a_late_answer_over_tcp_does_not_delay_the_next_and_both_are_sent() -> None:
    gate = asyncio.Event()

    async def later(query: bytes) -> bytes:
        await gate.wait()
        return query

    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: later(q) if q == b"slow" else q)
    reader, writer = await asyncio.open_connection(*listener.address)
    try:
        writer.write(b"\0\4slow\0\5quick")
        writer.write_eof()  # the client half-closes; both replies must still be sent (RFC 7766 section 6.2.4)
        assert await asyncio.wait_for(reader.readexactly(7), 1.0) == b"\0\5quick"
        gate.set()
        assert await asyncio.wait_for(reader.read(), 1.0) == b"\0\4slow"
    finally:
        writer.close()
        await writer.wait_closed()
        await listener.close()


async def test_a_connection_with_many_pending_answers_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.streams.MAX_PIPELINED", 3)
    gate, asked = asyncio.Event(), list[bytes]()

    async def later(query: bytes) -> bytes:
        await gate.wait()
        return query

    def handle(query: bytes, _client, _transport):
        asked.append(query)
        return later(query)

    listener = await serving.start(("127.0.0.1", 0), handle)
    reader, writer = await asyncio.open_connection(*listener.address)
    try:
        writer.write(b"".join(b"\0\1" + bytes([i]) for i in range(10)))
        await asyncio.sleep(0.05)  # time in which the server would read a fourth query; it must not
        assert len(asked) == 3
        gate.set()
        assert len(await asyncio.wait_for(reader.readexactly(30), 1.0)) == 30
    finally:
        writer.close()
        await writer.wait_closed()
        await listener.close()


async def test_closing_the_listener_ends_connections_with_pending_answers() -> None:
    listener = await serving.start(("127.0.0.1", 0), lambda q, c, t: asyncio.sleep(60))
    reader, writer = await asyncio.open_connection(*listener.address)
    writer.write(b"\0\1x")
    await asyncio.sleep(0.05)  # time for the query to reach the handler, which never answers
    async with asyncio.timeout(3):
        await listener.close()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_several_listeners_may_share_a_port_when_all_say_so() -> None:
    first = await serving.start(("127.0.0.1", 0), lambda q, c, t: b"1", shared=True)
    second = await serving.start(first.address, lambda q, c, t: b"2", shared=True)
    try:
        assert second.address == first.address
        assert {await over_udp(first.address, b"x") for _ in range(64)} == {b"1", b"2"}
        with pytest.raises(OSError, match="in use"):
            await serving.start(first.address, lambda q, c, t: q)
    finally:
        await first.close()
        await second.close()
