"""Tests for links: packets are lost, early or reordered only if configured; rates and probabilities are met."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packets import tcp
from wan import Departure, Link, LinkSettings, SettingError
from wan.damage import MODES
from wan.settings import CHECKS

MS = 1_000_000
SECOND = 1_000_000_000

#: Strategy for lists of packets: (nanoseconds since the previous packet, length in bytes).
arrivals = st.lists(st.tuples(st.integers(0, 5 * MS), st.integers(20, 1500)), min_size=1, max_size=60)


def link(seed: int = 0, **values: object) -> Link:
    return Link("access", "near", LinkSettings().changed(values), seed=seed)


def sent(a_link: Link, packets: list[tuple[int, int]], start: int = 0) -> list[tuple[int, tuple[Departure, ...]]]:
    now, out = start, []
    for gap, length in packets:
        now += gap
        out.append((now, a_link.send(bytes(length), now)))
    return out


@given(arrivals, st.floats(0, 500), st.floats(0, 50), st.sampled_from([None, 64_000, 10_000_000]))
def test_without_loss_no_packet_is_lost_early_or_out_of_order(packets, rtt_ms, jitter_ms, rate) -> None:
    a_link = link(rtt_ms=rtt_ms, jitter_ms=jitter_ms, rate_bps=rate, queue_bytes=16 << 20)
    out = sent(a_link, packets)
    assert all(len(departures) == 1 for _, departures in out)
    assert all(departures[0][0] >= now + round(rtt_ms * MS / 2) for now, departures in out)
    dues = [departures[0][0] for _, departures in out]
    assert dues == sorted(dues)
    assert a_link.queued == len(packets)


@given(arrivals, st.integers(0, 500))
def test_without_jitter_and_rate_the_delay_is_exact(packets, rtt_ms) -> None:
    assert all(departures[0][0] == now + rtt_ms * MS // 2 for now, departures in sent(link(rtt_ms=rtt_ms), packets))


@given(arrivals, st.floats(0, 20))
def test_jitter_alone_is_never_more_than_configured(packets, jitter_ms) -> None:
    out = sent(link(rtt_ms=10, jitter_ms=jitter_ms), packets)
    assert all(5 * MS <= d[0] - now <= 5 * MS + round(jitter_ms * MS) for now, (d,) in out)


@given(arrivals, st.integers(8_000, 100_000_000))
def test_a_link_is_never_faster_than_its_rate(packets, rate) -> None:
    out = sent(link(rate_bps=rate, queue_bytes=16 << 20), packets)
    dues = [d[0] for _, (d,) in out]
    lengths = [length for _, length in packets]
    for first, last in itertools.combinations(range(len(dues)), 2):
        # Between the departures of packets *first* and *last*, the link sends all packets after *first*.
        assert (dues[last] - dues[first]) * rate >= sum(lengths[first + 1 : last + 1]) * 8 * SECOND


def test_a_busy_link_reaches_its_rate() -> None:
    a_link = link(rate_bps=12_000_000)
    dues = [d[0] for _, (d,) in sent(a_link, [(0, 1500)] * 50)]
    assert dues == [MS * (n + 1) for n in range(50)]


def test_a_full_queue_drops_new_packets_and_empties_at_the_rate() -> None:
    a_link = link(rate_bps=12_000_000, queue_bytes=15_000)
    out = [bool(departures) for _, departures in sent(a_link, [(0, 1500)] * 12)]
    assert out == [True] * 10 + [False] * 2
    assert a_link.dropped_queue == 2
    assert a_link.send(bytes(1500), 1 * MS)
    assert not a_link.send(bytes(1500), 1 * MS)
    assert repr(a_link) == "<Link access>near packets=0 queued=11 dropped=3>"


def test_an_idle_link_accepts_a_packet_longer_than_its_queue() -> None:
    assert link(rate_bps=12_000_000, queue_bytes=1500).send(bytes(9000), 0)


@given(st.integers(0, 2**32), st.floats(0.01, 0.99))
@settings(max_examples=25)
def test_the_same_seed_loses_the_same_packets(seed, loss) -> None:
    packets = [(MS, 100)] * 200
    first = [bool(d) for _, d in sent(link(seed, loss=loss), packets)]
    assert first == [bool(d) for _, d in sent(link(seed, loss=loss), packets)]
    jittery = sent(link(seed, loss=loss, jitter_ms=3, rtt_ms=20), packets)
    assert first == [bool(d) for _, d in jittery], "jitter changed which packets are lost"
    other = [bool(d) for _, d in sent(link(seed + 1, loss=loss), packets)]
    assert not 0.05 < loss < 0.95 or first != other


@pytest.mark.parametrize("loss", [0.01, 0.2, 0.5])
def test_the_share_lost_is_the_one_configured(loss) -> None:
    count = 20_000
    a_link = link(7, loss=loss)
    delivered = sum(len(departures) for _, departures in sent(a_link, [(0, 100)] * count))
    assert delivered + a_link.dropped_loss == count
    # Tolerance: four standard deviations of the binomial distribution.  The seed is fixed, so the result never varies.
    assert abs(a_link.dropped_loss - count * loss) < 4 * (count * loss * (1 - loss)) ** 0.5


def test_a_loss_of_one_loses_every_packet() -> None:
    assert not any(departures for _, departures in sent(link(loss=1), [(0, 100)] * 100))


def test_configuring_restarts_the_draws_and_forgets_the_backlog() -> None:
    a_link = link(3, loss=0.3)
    first = [bool(d) for _, d in sent(a_link, [(0, 100)] * 100)]
    a_link.configure(a_link.settings)
    assert first == [bool(d) for _, d in sent(a_link, [(0, 100)] * 100)]
    a_link.configure(LinkSettings(rate_bps=1000))
    sent(a_link, [(0, 1500)] * 10)
    a_link.configure(LinkSettings(rtt_ms=10))
    assert a_link.send(b"x" * 100, 0)[0][0] == 5 * MS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"speed": 1}, f"expected one of {', '.join(CHECKS)}, got 'speed'"),
        ({"rtt_ms": -1}, "expected rtt_ms to be milliseconds between 0 and 60000, got -1"),
        ({"rtt_ms": "20"}, "expected rtt_ms to be milliseconds between 0 and 60000, got '20'"),
        ({"jitter_ms": True}, "expected jitter_ms to be milliseconds between 0 and 60000, got True"),
        ({"loss": 1.01}, "expected loss to be a probability between 0 and 1, got 1.01"),
        ({"loss": float("nan")}, "expected loss to be a probability between 0 and 1, got nan"),
        ({"rate_bps": 10}, "expected rate_bps to be a whole number between 1000 and 100000000000, got 10"),
        ({"rate_bps": 1e6}, "expected rate_bps to be a whole number between 1000 and 100000000000, got 1000000.0"),
        ({"duplicate": -0.1}, "expected duplicate to be a probability between 0 and 1, got -0.1"),
        ({"corrupt_swap16": "5%"}, "expected corrupt_swap16 to be a probability between 0 and 1, got '5%'"),
        ({"reorder_ms": 60_001}, "expected reorder_ms to be milliseconds between 0 and 60000, got 60001"),
        ({"corrupt_k": 0}, "expected corrupt_k to be a whole number between 1 and 65535, got 0"),
        ({"queue_bytes": 0}, "expected queue_bytes to be a whole number between 1500 and 16777216, got 0"),
    ],
    ids=lambda value: f"{value}" if isinstance(value, dict) else "refused",
)
def test_invalid_settings_are_refused(values, expected) -> None:
    with pytest.raises(SettingError) as refused:
        LinkSettings().changed(values)
    assert str(refused.value) == expected


@pytest.mark.parametrize("value", [None, 0])
def test_a_rate_of_null_or_zero_is_unlimited(value) -> None:
    assert LinkSettings(rate_bps=5000).changed({"rate_bps": value}).rate_bps is None


#: Names of all settings that are probabilities.
CHANCES = ("loss", "duplicate", "reorder", *(f"corrupt_{mode}" for mode in MODES))


@given(
    st.dictionaries(st.sampled_from(CHANCES), st.floats(0, 1)),
    st.integers(0, 9),
    st.sampled_from([None, 64_000, 10_000_000]),
)
@settings(max_examples=60, deadline=None)
def test_every_packet_is_counted(values, seed, rate) -> None:
    a_link = link(seed, rtt_ms=20, rate_bps=rate, queue_bytes=10_000, **values)
    packets = [tcp(bytes([n]) * 40 + bytes(40)) for n in range(100)]
    departures = [d for n, packet in enumerate(packets) for d in a_link.send(packet, n * MS)]
    assert len(departures) == a_link.queued
    assert len(packets) + a_link.duplicated == len(departures) + a_link.dropped
    damaged = [packet for _, packet in departures if packet not in packets]
    assert len(damaged) <= 2 * sum(a_link.corrupted.values())
    assert bool(damaged) == any(a_link.corrupted.values())


@given(st.sets(st.sampled_from(CHANCES)), st.sampled_from(CHANCES), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_one_impairment_does_not_change_what_another_hits(others, watched, seed) -> None:
    """For a given seed, an impairment affects the same packets whether or not other impairments are enabled."""

    def hit(a_link: Link) -> list[bool]:
        fates = []
        for n in range(60):
            before = a_link.duplicated, a_link.reordered, a_link.dropped_loss, dict(a_link.corrupted)
            a_link.send(tcp(bytes(range(100))), n * MS)
            after = a_link.duplicated, a_link.reordered, a_link.dropped_loss, dict(a_link.corrupted)
            fates.append(before[index] != after[index] if index is not None else before[3][mode] != after[3][mode])
        return fates

    index = {"duplicate": 0, "reorder": 1, "loss": 2}.get(watched)
    mode = watched.removeprefix("corrupt_")
    alone = hit(link(seed, **{watched: 0.3}))
    together = hit(link(seed, **{**dict.fromkeys(others - {"loss"}, 0.5), watched: 0.3}))
    assert together == alone


def test_the_same_seed_damages_the_same_bytes() -> None:
    values = {"corrupt_swap16": 0.3, "corrupt_random": 0.2, "duplicate": 0.2, "reorder": 0.2}
    packets = [tcp(bytes(range(n, n + 100))) for n in range(100)]

    def fates(seed: int) -> list[tuple[Departure, ...]]:
        a_link = link(seed, **values)
        return [a_link.send(packet, n) for n, packet in enumerate(packets)]

    assert fates(3) == fates(3) != fates(4)


@pytest.mark.parametrize("name", ["duplicate", "reorder", "corrupt_bitflip", "corrupt_swap16"])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_share_hit_is_the_one_configured(name, share) -> None:
    count, packet = 10_000, tcp(bytes(range(100)))
    a_link = link(5, **{name: share})
    for n in range(count):
        a_link.send(packet, n)
    hit = {"duplicate": a_link.duplicated, "reorder": a_link.reordered}.get(name, sum(a_link.corrupted.values()))
    assert abs(hit - count * share) < 4 * (count * share * (1 - share)) ** 0.5


def test_a_reordered_packet_is_overtaken_by_later_ones() -> None:
    a_link = link(1, rtt_ms=20, reorder=0.2, reorder_ms=5)
    dues = [a_link.send(bytes(100), n * MS)[0][0] for n in range(100)]
    late = [n for n, due in enumerate(dues) if due != 10 * MS + n * MS]
    assert len(late) == a_link.reordered > 0
    assert all(dues[n] == 15 * MS + n * MS for n in late)


def test_a_duplicate_arrives_with_its_original() -> None:
    a_link = link(duplicate=1, rtt_ms=20)
    assert a_link.send(b"x", 0) == ((10 * MS, b"x"),) * 2
    assert repr(a_link) == "<Link access>near packets=0 queued=2 dropped=0>"
    assert (a_link.queued, a_link.duplicated) == (2, 1)
