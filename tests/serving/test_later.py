"""Tests for awaitables that apply a function to the result of another awaitable."""

import asyncio
import gc
import struct
import warnings
from collections.abc import Awaitable, Callable

import pytest

import serving
from serving import Later
from telemetry import Telemetry

QUERY = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\1a\0\0\1\0\1"


async def late(wire: bytes) -> bytes:
    await asyncio.sleep(0)  # give other tasks one turn
    return wire


async def test_the_function_is_applied_to_the_result() -> None:
    assert await Later(Later(late(b"a"), bytes.upper), len) == 1


async def test_an_exception_of_the_first_awaitable_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await Later(Later(late(b""), lambda ready: 1 // len(ready)), str)


def closed(reply: Awaitable[object]) -> None:
    reply.close()  # type: ignore[attr-defined]  # every `Later` can be closed


async def cancelled(reply: Awaitable[object]) -> None:
    async def waits() -> None:
        await reply

    task = asyncio.create_task(waits())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("drop", [closed, lambda reply: None], ids=["closed", "discarded"])
async def test_a_dropped_reply_of_a_guarded_handler_causes_no_warning(drop: Callable[[object], None]) -> None:
    policy = serving.Policy(serving.Settings(), Telemetry("test"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reply = policy.guard(lambda wire, _client, _transport: late(wire))(QUERY, ("127.0.0.1", 1), "udp")
        assert isinstance(reply, Later)
        drop(reply)
        del reply
        gc.collect()
    assert not caught


async def test_a_reply_whose_task_is_cancelled_before_it_starts_causes_no_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await cancelled(Later(Later(late(b""), len), str))
        gc.collect()
    assert not caught
