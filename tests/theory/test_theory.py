"""The models against the values that SCENARIOS names, and against Monte-Carlo (seeded)."""

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory


@pytest.mark.parametrize(
    ("protocol", "resumed", "slope"),
    [("plain", False, 2), ("TLSv1.3", False, 3), ("TLSv1.3", True, 3), ("TLSv1.2", False, 4), ("TLSv1.2", True, 3)],
)
def test_time_to_first_byte_has_an_integer_slope(protocol: theory.Protocol, resumed: bool, slope: int) -> None:
    near, far = (theory.time_to_first_byte_ms(rtt, protocol, resumed=resumed, server_ms=3) for rtt in (20, 120))
    assert (far - near) / 100 == slope


def test_the_square_wave_of_time_wait() -> None:
    assert theory.exhausted_at(1000) == pytest.approx(28.232)
    assert theory.sustainable_rate() == pytest.approx(470.5, abs=0.05)
    assert theory.sustainable_rate(256) == pytest.approx(4.27, abs=0.005)
    assert [theory.success_share(1000, t) for t in (28.2, 28.3, 59.9, 60.1, 88.2, 88.3)] == [1, 0, 0, 1, 1, 0]
    assert theory.exhausted_at(400) is None
    assert theory.duty_cycle(1000) == pytest.approx(28_232 / 60_000)


def test_the_square_wave_is_what_a_simulation_of_ports_does() -> None:
    rate, ports, wait = 200, 2000, 30.0
    busy: list[float] = []
    succeeded = [0] * 60
    for i in range(rate * 60):
        now = i / rate
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if len(busy) < ports:
            heapq.heappush(busy, now + wait)
            succeeded[int(now)] += 1
    model = [theory.success_share(rate, t, ports, wait) for t in range(60)]
    assert [n / rate for n in succeeded] == pytest.approx(model, abs=0.02)


@pytest.mark.parametrize(
    ("servers", "exponential", "constant"), [(13, 42, 21), (14, 9.9, 5.1), (16, 1.9, 1.0), (20, 0.12, 0.08)]
)
def test_waiting_for_a_connection(servers: int, exponential: float, constant: float) -> None:
    assert theory.mm_c_wait(500, 0.025, servers) * 1000 == pytest.approx(exponential, rel=0.05)
    assert theory.md_c_wait(500, 0.025, servers) * 1000 == pytest.approx(constant, rel=0.10)


@pytest.mark.parametrize("kind", ["exponential", "constant"])
def test_waiting_is_what_a_simulation_of_a_queue_does(kind: str) -> None:
    rng, rate, holding, servers = random.Random(7), 500.0, 0.025, 14
    free = [0.0] * servers
    now = total = 0.0
    count = 150_000
    for _ in range(count):
        now += rng.expovariate(rate)
        start = max(now, heapq.heappop(free))
        total += start - now
        heapq.heappush(free, start + (rng.expovariate(1 / holding) if kind == "exponential" else holding))
    model = theory.mm_c_wait if kind == "exponential" else theory.md_c_wait
    assert total / count == pytest.approx(model(rate, holding, servers), rel=0.12)


def test_an_overloaded_queue_has_no_wait() -> None:
    with pytest.raises(ValueError, match="below 2 erlangs, got 2"):
        theory.erlang_c(2, 2.0)


@pytest.mark.parametrize(("ttl", "hit"), [(30, 0.75), (300, 0.968)])
def test_cache_hit_rate(ttl: float, hit: float) -> None:
    assert theory.hit_rate(0.1, ttl) == pytest.approx(hit, abs=0.001)
    rng, now, expires, hits, count = random.Random(3), 0.0, 0.0, 0, 40_000
    for _ in range(count):
        now += rng.expovariate(0.1)
        if now < expires:
            hits += 1
        else:
            expires = now + ttl
    assert hits / count == pytest.approx(theory.hit_rate(0.1, ttl), abs=0.01)


@given(st.floats(0.001, 1000), st.floats(0.1, 86400))
def test_what_the_cache_does_not_answer_goes_upstream(rate: float, ttl: float) -> None:
    assert theory.upstream_rate(rate, ttl) == pytest.approx(rate * (1 - theory.hit_rate(rate, ttl)))
    assert theory.stale_share(rate, ttl, 0) == pytest.approx(theory.hit_rate(rate, ttl))
    assert theory.stale_share(rate, ttl, ttl) == 0


@pytest.mark.parametrize(
    ("octets", "count"),
    [(0, 0), (1, 1), (14_480, 1), (14_481, 2), (43_440, 2), (101_360, 3), (217_200, 4), (217_201, 5)],
)
def test_slow_start_rounds(octets: int, count: int) -> None:
    assert theory.rounds(octets) == count
    window, sent, simulated = 10, 0, 0
    while sent * 1448 < octets:
        sent, window, simulated = sent + window, window * 2, simulated + 1
    assert simulated == count


def test_pools_and_names() -> None:
    assert theory.fresh_request_ms(20, 5) - theory.pooled_request_ms(20, 5) == 40
    assert theory.connections_in_use(500, 20, 5) == 12.5
    assert theory.cold_ms(4, [10, 20, 16]) == 50
