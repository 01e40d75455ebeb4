"""Tests for fair queueing of validations between accounts."""

from hypothesis import given
from hypothesis import strategies as st

from acme_server.fair_queue import FairQueue


def test_accounts_take_turns() -> None:
    queue: FairQueue[int] = FairQueue(100, 100, 100)
    for number in range(4):
        queue.put("busy", number)
    queue.put("other", 10)
    queue.put("third", 20)
    order = []
    while (taken := queue.take()) is not None:
        order.append(taken[1])
    assert order == [0, 10, 20, 1, 2, 3]


def test_one_account_cannot_have_all_places() -> None:
    queue: FairQueue[int] = FairQueue(3, 2, 100)
    for number in range(4):
        queue.put("busy", number)
    assert [queue.take() for _ in range(3)] == [("busy", 0), ("busy", 1), None]
    queue.put("other", 10)
    assert queue.take() == ("other", 10)
    assert repr(queue) == "<FairQueue waiting=2 of 1 accounts, running=3>"
    queue.done("busy")
    assert queue.take() == ("busy", 2)


def test_waiting_items_of_an_account_are_limited() -> None:
    queue: FairQueue[int] = FairQueue(1, 1, 2)
    queue.put("busy", 1)
    assert not queue.full("busy")
    queue.put("busy", 2)
    assert queue.full("busy")
    assert not queue.full("other")


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_every_item_is_taken_once_and_in_order_per_account(accounts: list[str], at_once: int, per_account: int) -> None:
    queue: FairQueue[int] = FairQueue(at_once, per_account, 100)
    for number, account in enumerate(accounts):
        queue.put(account, number)
    got: dict[str, list[int]] = {}
    running: list[str] = []
    while queue or running:
        if (taken := queue.take()) is None:
            queue.done(running.pop(0))
            continue
        got.setdefault(taken[0], []).append(taken[1])
        running.append(taken[0])
        assert len(running) <= at_once
        assert running.count(taken[0]) <= per_account
    assert got == {each: [n for n, a in enumerate(accounts) if a == each] for each in set(accounts)}
