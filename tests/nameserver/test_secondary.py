"""Tests for the state machine of a secondary zone; the time is an argument."""

import struct
from random import Random

import pytest

from dnsmessage import Name
from nameserver.secondary import JITTER, AskSerial, Expire, Primary, Secondary, Transfer, Wait

ONE, TWO = Primary("192.0.2.1"), Primary("192.0.2.2", 5353)


def soa(serial: int, refresh: int = 60, retry: int = 30, expire: int = 600) -> bytes:
    return b"\0\0" + struct.pack("!5I", serial, refresh, retry, expire, 10)


def secondary(*, serial: int | None = None, now: float = 0.0) -> Secondary:
    """Return a secondary without data or, if *serial* is given, with a zone that was confirmed at *now*."""
    made = Secondary(Name.from_text("example."), (ONE, TWO), Random(1))
    if serial is not None:
        made.restored(soa(serial), now)
    return made


def wait(core: Secondary, now: float) -> float:
    """Return the wait that the state machine asks for, in seconds."""
    action = core.next(now)
    assert isinstance(action, Wait), action
    return action.until - now


def test_without_a_zone_each_primary_is_asked_for_all_of_it_at_once() -> None:
    core = secondary()
    assert core.next(0.0) == Transfer(ONE, changes=False)
    core.failed("connection refused", 0.0)
    assert core.next(0.0) == Transfer(TWO, changes=False)
    core.failed("connection refused", 0.0)
    assert 0 < wait(core, 0.0) <= 0.25
    assert core.trouble == "192.0.2.2:5353: connection refused"


def test_without_a_zone_rounds_become_rarer_up_to_a_minute() -> None:
    core, now, waits = secondary(), 0.0, []
    for _ in range(12):
        for _ in range(2):
            assert isinstance(core.next(now), Transfer)
            core.failed("connection refused", now)
        waits.append(wait(core, now))
        now += waits[-1]
    assert all((1 - JITTER) * 0.25 * 2**i <= each <= 0.25 * 2**i for i, each in enumerate(waits[:8]))
    assert all((1 - JITTER) * 60 <= each <= 60 for each in waits[9:])


def test_the_serial_decides_whether_changes_are_transferred() -> None:
    core = secondary(serial=5)
    assert core.next(0.0) == AskSerial(ONE)
    core.serial_is(6, 0.1)
    assert core.next(0.1) == Transfer(ONE, changes=True)
    core.transferred(soa(6, refresh=100), 0.2)
    assert (1 - JITTER) * 100 <= wait(core, 0.2) <= 100
    assert core.serial == 6


def test_an_equal_serial_confirms_the_zone_until_the_next_refresh() -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(5, 7.0)
    assert (1 - JITTER) * 60 <= wait(core, 7.0) <= 60
    assert core.expires == 607.0


def test_unusable_changes_lead_to_a_whole_zone_from_the_same_primary_and_then_to_the_next() -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(6, 0.0)
    core.failed("expected NOERROR, got NOTIMP", 0.0, answered=True)
    assert core.next(0.0) == Transfer(ONE, changes=False)
    core.failed("expected NOERROR, got REFUSED", 0.0, answered=True)
    assert core.next(0.0) == AskSerial(TWO)


def test_a_primary_that_is_behind_does_not_confirm_the_zone() -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(4, 10.0)
    assert core.next(10.0) == AskSerial(TWO)
    core.serial_is(2**32 - 1, 10.0)
    assert (1 - JITTER) * 30 <= wait(core, 10.0) <= 30
    assert core.confirmed == 0.0
    assert core.trouble == "192.0.2.2:5353: expected serial 5 or a newer one, got 4294967295"


def test_the_serial_after_the_largest_is_newer() -> None:
    core = secondary(serial=2**32 - 1)
    core.next(0.0)
    core.serial_is(1, 0.0)
    assert core.next(0.0) == Transfer(ONE, changes=True)


def test_a_zone_that_no_primary_confirms_expires_once_and_comes_back_whole() -> None:
    core, now = secondary(serial=5), 0.0
    actions = []
    while now < 700.0:
        action = core.next(now)
        actions.append(action)
        if isinstance(action, Wait):
            now = action.until
        elif not isinstance(action, Expire):
            core.failed("no answer in time", now)
    expired = actions.index(Expire())
    assert actions.count(Expire()) == 1
    assert Transfer(ONE, changes=False) not in actions[:expired]
    assert actions[expired - 1] == Wait(600.0)
    assert core.expired
    while isinstance(action := core.next(now), Wait):
        now = action.until
    assert action == Transfer(ONE, changes=False)
    core.transferred(soa(3), now)
    assert (core.expired, core.serial, core.failures) == (False, 3, 0)


def test_a_copy_that_expired_while_the_server_was_down_is_not_served() -> None:
    core = secondary(serial=5, now=-1000.0)
    assert core.next(0.0) == Expire()
    assert core.next(0.0) == Transfer(ONE, changes=False)


@pytest.mark.parametrize(
    ("serial", "action"),
    [(6, Transfer(TWO, changes=True)), (None, AskSerial(TWO)), (5, None), (4, None)],
    ids=["newer", "no-hint", "ours", "older"],
)
def test_a_notify_asks_its_sender_first(serial: int | None, action: object) -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(5, 0.0)
    assert core.notified("192.0.2.2", serial, 1.0)
    if action is None:
        wait(core, 1.0)
    else:
        assert core.next(1.0) == action


def test_a_notify_from_another_address_is_not_accepted() -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(5, 0.0)
    assert not core.notified("192.0.2.9", 6, 1.0)
    wait(core, 1.0)


@pytest.mark.parametrize(("serials", "again"), [((6, 7, 8), True), ((6, 6), False), ((6, None), True)])
def test_notifies_during_a_round_lead_to_one_more_round_if_they_may_tell_news(
    serials: tuple[int | None, ...], again: bool
) -> None:
    core = secondary(serial=5)
    core.next(0.0)
    core.serial_is(6, 0.0)
    for serial in serials:
        core.notified("192.0.2.1", serial, 0.0)
    core.transferred(soa(6), 0.0)
    assert isinstance(core.next(0.0), Wait) is not again
    if again:
        core.serial_is(6, 0.0)
        wait(core, 0.0)


@pytest.mark.parametrize(("refresh", "low", "high"), [(0, 0.75, 1.0), (2**31, 21 * 86400, 28 * 86400)])
def test_the_timers_of_the_zone_are_bounded(refresh: int, low: float, high: float) -> None:
    core = secondary()
    core.next(0.0)
    core.transferred(soa(5, refresh=refresh, expire=2**32 - 1), 0.0)
    assert low <= wait(core, 0.0) <= high


def test_the_representation_shows_the_state() -> None:
    core = secondary(serial=5)
    core.next(0.0)
    assert repr(core) == "<Secondary example. serial=5 asking=2 failures=0>"
