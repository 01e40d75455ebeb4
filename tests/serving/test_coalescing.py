"""Tests for the decision whether to wait for a larger batch."""

import pytest

from serving.coalescing import LARGE, PROBE, SMALL, TRUST, Coalescing


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, False), (SMALL - 1, False), (SMALL, True), (LARGE - 1, True), (LARGE, False)],
    ids=["one-query", "few", "smallest", "largest", "full"],
)
def test_only_batches_of_medium_size_are_followed_by_a_pause(count: int, expected: bool) -> None:
    assert Coalescing().pauses(count, grouped=False) is expected


def test_pauses_that_do_not_lead_to_grouped_responses_become_rare() -> None:
    coalescing = Coalescing()
    pauses = [coalescing.pauses(SMALL, grouped=False) for _ in range(TRUST + 2 * PROBE)]
    assert pauses[:TRUST] == [True] * TRUST
    assert 1 <= sum(pauses[TRUST:]) <= 2


def test_one_grouped_batch_restores_the_pauses() -> None:
    coalescing = Coalescing()
    for _ in range(TRUST + 1):
        coalescing.pauses(SMALL, grouped=False)
    assert not coalescing.pauses(SMALL, grouped=False)
    assert coalescing.pauses(SMALL, grouped=True)
    assert coalescing.pauses(SMALL, grouped=False), "a single failure does not end them"


def test_a_batch_without_a_pause_before_it_says_nothing_about_pauses() -> None:
    coalescing = Coalescing()
    for _ in range(10 * TRUST):
        coalescing.pauses(1, grouped=False)
    assert coalescing.pauses(SMALL, grouped=False)
