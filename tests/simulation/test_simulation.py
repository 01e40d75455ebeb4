"""Tests that simulations agree with the closed forms of `theory`, are reproducible, and need little memory."""

import math
import tracemalloc

import pytest

from simulation import caches, chunks, storms
from theory import outage, propagation, ttl

#: Number of clients in most tests; the standard deviation of a share is then at most 0.0005.
CLIENTS = 1_000_000


@pytest.mark.parametrize(("rate", "lifetime"), [(0.002, 60), (0.1, 10), (0.4, 10), (20, 10)])
def test_the_old_record_fades_as_the_closed_form_says(rate: float, lifetime: float) -> None:
    found = caches.fading(CLIENTS, rate, lifetime)
    for step in (0, 0.25, 0.5, 0.75, 1):
        at = step * lifetime
        assert found.at(at) == pytest.approx(ttl.stale_share(rate, lifetime, at), abs=0.004), at


def test_an_outage_is_answered_by_the_same_caches() -> None:
    found = caches.fading(CLIENTS, 0.4, 10)
    assert found.at(4) == pytest.approx(outage.answered_share(0.4, 10, 4), abs=0.004)


@pytest.mark.parametrize("at", [0, 1, 3, 5, 9, 11, 12.5])
def test_a_secondary_that_lags_refills_caches_with_the_old_record(at: float) -> None:
    found = caches.fading(CLIENTS // 4, 200, 10, lag=3, secondary_share=0.5)
    assert found.at(at) == pytest.approx(propagation.stale_share(at, 10, 3, 0.5), abs=0.006)


def test_a_storm_has_the_orders_of_the_outage_spread_evenly() -> None:
    day = 86_400
    found = storms.storm(CLIENTS * 4, 47 * day, 30 * day, day, 3600)
    due, usual = CLIENTS * 4 / 30, CLIENTS * 4 / (30 * day)
    after = [rate for at, rate in zip(found.times, found.orders, strict=True) if day + 300 < at < day + 3300]
    assert sum(after) / len(after) == pytest.approx(due / 3600 + usual, rel=0.03)
    assert max(rate for at, rate in zip(found.times, found.orders, strict=True) if at < day - 300) == 0
    assert found.expired == 0


def test_certificates_expire_in_an_outage_longer_than_their_slack() -> None:
    day = 86_400
    found = storms.storm(CLIENTS, 47 * day, 30 * day, 20 * day, 60)
    assert found.expired == pytest.approx(3 / 30, abs=0.002)


@pytest.mark.parametrize("clients", [1000, chunks.CHUNK, chunks.CHUNK + 1, 3 * chunks.CHUNK])
def test_the_same_seed_gives_the_same_result(clients: int) -> None:
    first, second, other = (caches.fading(clients, 0.4, 10, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert all(0 <= share <= 1 for share in first.share)


def test_memory_does_not_grow_with_the_number_of_clients() -> None:
    peaks = []
    for clients in (2 * chunks.CHUNK, 32 * chunks.CHUNK):
        tracemalloc.start()
        caches.fading(clients, 0.4, 10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 3 * peaks[0]
    assert peaks[1] < 200 * 2**20


def test_a_storm_of_a_thousand_certificates_loses_none() -> None:
    found = storms.storm(1000, 3600, 2400, 2400, 600)
    width = found.times[1] - found.times[0]
    assert sum(found.orders) * width == pytest.approx(1000)
    assert math.isclose(found.peak, max(found.orders))
