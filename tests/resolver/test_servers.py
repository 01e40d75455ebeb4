"""Tests for server selection: responsive servers first, then in order of round-trip time."""

import random

from hypothesis import given
from hypothesis import strategies as st

from resolver.servers import COOLDOWN, EJECT_AFTER, MAX_SERVERS, Servers

NEAR, FAR, NEW = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def order(servers: Servers, now: float) -> list[str]:
    rng = random.Random(1)
    return sorted((NEAR, FAR), key=lambda address: servers.rank(address, now, rng))


def test_the_nearest_is_asked_first_but_for_a_minute_after_three_timeouts() -> None:
    servers = Servers()
    servers.answered(FAR, 80.0)
    servers.answered(NEAR, 2.0)
    assert order(servers, 0.0) == [NEAR, FAR]
    assert [servers.timed_out(NEAR, 1.0) for _ in range(EJECT_AFTER)] == [False] * (EJECT_AFTER - 1) + [True]
    assert order(servers, 1.0) == order(servers, 0.9 + COOLDOWN) == [FAR, NEAR]
    assert order(servers, 1.0 + COOLDOWN) == [NEAR, FAR]
    assert servers.timed_out(NEAR, 1.0 + COOLDOWN)  # the probe times out, so the server is ejected again for a minute
    assert not servers.timed_out(
        NEAR, 2.0 + COOLDOWN
    )  # a second query was already in flight; its time-out is not reported
    assert order(servers, 1.9 + 2 * COOLDOWN) == [FAR, NEAR]
    assert repr(servers) == "<Servers known=2 unresponsive=1>"


def test_one_reply_ends_the_ejection() -> None:
    servers = Servers()
    servers.answered(FAR, 80.0)
    for _ in range(2 * EJECT_AFTER):
        servers.timed_out(NEAR, 0.0)
    assert order(servers, 0.0) == [FAR, NEAR]
    servers.answered(NEAR, 2.0)
    assert order(servers, 0.0) == [NEAR, FAR]
    assert not servers.timed_out(NEAR, 0.0)


def test_a_server_that_answers_now_and_then_is_reported_as_ejected_once_per_minute() -> None:
    servers, reported = Servers(), list[float]()
    for second in range(int(COOLDOWN) + 10):
        reported += [float(second) for _ in range(EJECT_AFTER) if servers.timed_out(NEAR, float(second))]
        servers.answered(NEAR, 2.0)
    assert reported == [0.0, COOLDOWN]


def test_a_server_without_a_round_trip_time_counts_as_near() -> None:
    servers, rng = Servers(), random.Random(1)
    servers.answered(FAR, 2.0)
    servers.timed_out(NEAR, 0.0)
    assert max(servers.rank(NEAR, 0.0, rng), servers.rank(NEW, 0.0, rng)) < servers.rank(FAR, 0.0, rng)
    assert servers.srtt_ms(NEW) is servers.srtt_ms(NEAR) is None


def test_the_number_of_remembered_servers_is_bounded() -> None:
    servers = Servers()
    for i in range(MAX_SERVERS + 10):
        servers.timed_out(f"10.0.{i // 256}.{i % 256}", 0.0)
    assert len(servers.known) == MAX_SERVERS
    assert "10.0.0.9" not in servers.known


@given(st.lists(st.tuples(st.sampled_from([NEAR, FAR]), st.booleans(), st.floats(0, 100)), max_size=60))
def test_only_three_timeouts_in_a_row_eject_and_for_a_minute_at_most(
    history: list[tuple[str, bool, float]],
) -> None:
    servers, now = Servers(), 0.0
    for address, answers, wait in history:
        now += wait
        if answers:
            servers.answered(address, 1.0)
        else:
            servers.timed_out(address, now)
        for known in servers.known.values():
            assert (known.ejected_until > now) <= (known.timeouts >= EJECT_AFTER)
            assert known.ejected_until <= now + COOLDOWN
