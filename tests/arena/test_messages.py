"""Tests for the arena's messages and cookies."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena import messages
from arena.messages import ArenaError, Cookies, Join, Mode, Snapshot

JOIN = Join(60.0, 400, 10.0, Mode.NEWEST, b"0123456789abcdef")
PLAYER, OTHER = ("198.19.1.10", 40_000), ("198.19.1.10", 40_001)


def test_messages_are_what_was_encoded():
    assert Join.decode(JOIN.encode()) == JOIN
    assert Snapshot.decode(Snapshot(7, 123).encode(400)) == Snapshot(7, 123)
    assert len(Snapshot(7, 123).encode(400)) == 400
    assert messages.cookie_of(messages.cookie_message(b"0123456789abcdef")) == b"0123456789abcdef"


def test_the_answer_to_a_hello_is_shorter_than_the_hello():
    assert len(messages.cookie_message(bytes(messages.COOKIE))) < len(messages.hello())


@pytest.mark.parametrize(
    ("join", "words"),
    [
        pytest.param(Join(0.5, 400, 10.0), "expected a rate from 1 to 120", id="too-slow"),
        pytest.param(Join(1000.0, 400, 10.0), "expected a rate from 1 to 120", id="too-fast"),
        pytest.param(Join(float("nan"), 400, 10.0), "expected a rate", id="not-a-number"),
        pytest.param(Join(60.0, 1500, 10.0), "expected a size from 20 to 1200", id="more-than-a-packet"),
        pytest.param(Join(60.0, 400, 1e6), "expected a duration", id="for-ever"),
    ],
)
def test_a_join_out_of_bounds_is_refused(join, words):
    with pytest.raises(ArenaError, match=words):
        Join.decode(join.encode())


def test_an_unknown_mode_is_refused():
    data = bytearray(JOIN.encode())
    data[struct.calcsize("!4sB16s")] = 9
    with pytest.raises(ArenaError, match="expected a mode of 0, 1, got 9"):
        Join.decode(bytes(data))


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: messages.MAGIC + rest))
def test_no_message_raises_another_error(data):
    for decode in (Join.decode, Snapshot.decode, messages.kind_of, messages.cookie_of):
        try:
            decode(data)
        except ArenaError:
            continue


def test_a_cookie_is_valid_for_its_address_and_for_a_limited_time():
    cookies = Cookies(b"secret")
    cookie = cookies.make(PLAYER, now=100.0)
    life = messages.COOKIE_LIFE
    assert cookies.check(PLAYER, cookie, now=100.0 + life)
    assert not cookies.check(OTHER, cookie, now=100.0)
    assert not cookies.check(PLAYER, cookie, now=100.0 + 2 * life)
    assert not Cookies(b"other").check(PLAYER, cookie, now=100.0)
