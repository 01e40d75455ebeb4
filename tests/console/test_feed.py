"""Tests for server-sent events: newest message of each kind, maximum number of clients, end at shutdown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from console.feed import Feed


async def take(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


async def test_a_new_page_gets_the_newest_of_each_kind_in_order() -> None:
    feed = Feed()
    for kind, data in (("state", "1"), ("trace", "t"), ("state", "2")):
        feed.publish(kind, data)
    async with aclosing(feed.stream()) as stream:
        assert await take(stream, 3) == [
            b"retry: 2000\n\n",
            b"event: trace\ndata: t\n\n",
            b"event: state\ndata: 2\n\n",
        ]


async def test_an_open_page_gets_each_new_message_once() -> None:
    feed = Feed()
    feed.publish("state", "1")
    async with aclosing(feed.stream()) as stream:
        await take(stream, 2)
        waiting = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)  # let the task reach its first wait
        feed.publish("state", "2")
        assert await waiting == [b"event: state\ndata: 2\n\n"]


async def test_a_slow_page_skips_outdated_messages() -> None:
    feed = Feed()
    async with aclosing(feed.stream()) as stream:
        await take(stream, 1)
        for data in "123":
            feed.publish("state", data)
        assert await take(stream, 1) == [b"event: state\ndata: 3\n\n"]


async def test_an_idle_stream_gets_a_comment() -> None:
    async with aclosing(Feed(heartbeat=0.01).stream()) as stream:
        assert (await take(stream, 2))[1] == b": still here\n\n"


async def test_pages_are_counted_and_bounded() -> None:
    feed = Feed(max_clients=1)
    assert repr(feed) == "<Feed clients=0 kinds=[] closed=False>"
    async with aclosing(feed.stream()) as stream:
        await take(stream, 1)
        assert feed.full
        assert repr(feed) == "<Feed clients=1 kinds=[] closed=False>"
    assert feed.clients == 0


async def test_closing_the_feed_ends_every_stream() -> None:
    feed = Feed()
    stream = feed.stream()
    await take(stream, 1)
    waiting = asyncio.create_task(anext(stream, b"end"))
    await asyncio.sleep(0)  # let the task reach its first wait
    feed.close()
    async with asyncio.timeout(5):
        assert await waiting == b"end"
