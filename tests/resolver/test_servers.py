"""Whom experience prefers: those that answer, then the near ones."""

import random

from hypothesis import given
from hypothesis import strategies as st

from resolver.servers import HOLD_DOWN, MOST, SILENT_AFTER, Servers

NEAR, FAR, NEW = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def order(servers: Servers, now: float) -> list[str]:
    rng = random.Random(1)
    return sorted((NEAR, FAR), key=lambda address: servers.rank(address, now, rng))


def test_the_near_one_goes_first_until_it_is_silent_and_again_a_minute_after() -> None:
    servers = Servers()
    servers.answered(FAR, 80.0)
    servers.answered(NEAR, 2.0)
    assert order(servers, 0.0) == [NEAR, FAR]
    assert [servers.unanswered(NEAR, 1.0) for _ in range(SILENT_AFTER)] == [False] * (SILENT_AFTER - 1) + [True]
    assert order(servers, 1.0) == order(servers, 0.9 + HOLD_DOWN) == [FAR, NEAR]
    assert order(servers, 1.0 + HOLD_DOWN) == [NEAR, FAR]
    assert servers.unanswered(NEAR, 1.0 + HOLD_DOWN)  # one more in vain: again a minute
    assert not servers.unanswered(NEAR, 2.0 + HOLD_DOWN)  # another that was under way
    assert order(servers, 1.9 + 2 * HOLD_DOWN) == [FAR, NEAR]
    assert repr(servers) == "<Servers known=2 silent=1>"


def test_one_reply_ends_it() -> None:
    servers = Servers()
    servers.answered(FAR, 80.0)
    for _ in range(2 * SILENT_AFTER):
        servers.unanswered(NEAR, 0.0)
    assert order(servers, 0.0) == [FAR, NEAR]
    servers.answered(NEAR, 2.0)
    assert order(servers, 0.0) == [NEAR, FAR]
    assert not servers.unanswered(NEAR, 0.0)


def test_a_server_that_was_never_measured_is_taken_for_a_near_one() -> None:
    servers, rng = Servers(), random.Random(1)
    servers.answered(FAR, 2.0)
    servers.unanswered(NEAR, 0.0)
    assert max(servers.rank(NEAR, 0.0, rng), servers.rank(NEW, 0.0, rng)) < servers.rank(FAR, 0.0, rng)
    assert servers.srtt_ms(NEW) is servers.srtt_ms(NEAR) is None


def test_what_is_remembered_has_a_bound() -> None:
    servers = Servers()
    for i in range(MOST + 10):
        servers.unanswered(f"10.0.{i // 256}.{i % 256}", 0.0)
    assert len(servers.known) == MOST
    assert "10.0.0.9" not in servers.known


@given(st.lists(st.tuples(st.sampled_from([NEAR, FAR]), st.booleans(), st.floats(0, 100)), max_size=60))
def test_silent_is_whoever_failed_three_times_in_a_row_and_for_a_minute_at_most(
    history: list[tuple[str, bool, float]],
) -> None:
    servers, now = Servers(), 0.0
    for address, answers, wait in history:
        now += wait
        if answers:
            servers.answered(address, 1.0)
        else:
            servers.unanswered(address, now)
        for known in servers.known.values():
            assert (known.silent_until > now) <= (known.unanswered >= SILENT_AFTER)
            assert known.silent_until <= now + HOLD_DOWN
