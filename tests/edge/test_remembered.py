"""Tests for the cache of parsed message heads."""

from hypothesis import given
from hypothesis import strategies as st

from edge.remembered import LONGEST, Remembered


def test_a_flood_of_newcomers_evicts_nothing_that_is_asked_for_often() -> None:
    computed: list[bytes] = []

    def function(key: bytes) -> int:
        computed.append(key)
        return len(key)

    remembered = Remembered(function, generation=1000)
    for _ in range(2):
        assert remembered(b"hot") == 3
    for number in range(10_000):
        remembered(b"%020d" % number)
    computed.clear()
    assert remembered(b"hot") == 3
    assert computed == []


def test_memory_is_bounded_whatever_is_asked() -> None:
    remembered = Remembered(len, generation=1000)
    for number in range(5000):
        for _ in range(1 + number % 2):
            remembered(b"%020d" % number)
    kept = (*remembered._new, *remembered._frequent, *remembered._previous)
    assert sum(map(len, kept)) <= 3000
    remembered(bytes(LONGEST + 1))
    assert bytes(LONGEST + 1) not in remembered._new


@given(st.lists(st.binary(max_size=3), max_size=60))
def test_it_always_returns_what_the_function_would(keys: list[bytes]) -> None:
    remembered = Remembered(lambda key: key[::-1], generation=8)
    assert [remembered(key) for key in keys] == [key[::-1] for key in keys]
