"""Tests that compare every model with a simulation that does not use the model's formula; seeds are fixed."""

import heapq
import math
import random
import statistics
from itertools import pairwise

import pytest

from tests.packets import checksum
from theory import (
    congestion,
    flow_control,
    integrity,
    keepalive,
    omission,
    outage,
    propagation,
    queueing,
    reconnect,
    recovery,
    slow_start,
    snapshots,
    time_wait,
    ttl,
)


def test_waiting_ports_make_a_square_wave() -> None:
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
    model = [time_wait.success_share(rate, t, ports, wait) for t in range(60)]
    assert [n / rate for n in succeeded] == pytest.approx(model, abs=0.02)
    assert sum(succeeded) / (rate * 60) == pytest.approx(time_wait.duty_cycle(rate, ports, wait), abs=0.01)


@pytest.mark.parametrize(
    "cure", [{}, {"sources": 3}, {"destinations": 2}, {"tw_reuse": True}, {"reused": 0.75}], ids=str
)
def test_cures_sustain_the_predicted_rate_and_no_more(cure: dict) -> None:
    """At twice the sustainable rate, the mean success rate equals the sustainable rate."""
    rng, ports, wait = random.Random(5), 50, 10.0
    wanted = 2 * time_wait.cured_rate(ports, wait, **cure)
    window = ports * cure.get("sources", 1) * cure.get("destinations", 1)
    held = min(wait, 1.0) if cure.get("tw_reuse") else wait
    busy: list[float] = []
    done, seconds = 0, 60 * wait
    for i in range(int(wanted * seconds)):
        now = i / wanted
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if rng.random() < cure.get("reused", 0):
            done += 1
        elif len(busy) < window:
            heapq.heappush(busy, now + held)
            done += 1
    # Requests on a reused connection need no port, so only requests that open a connection are limited.
    share = cure.get("reused", 0)
    sustained = time_wait.cured_rate(ports, wait, **cure)
    assert done / seconds == pytest.approx(wanted * share + sustained * (1 - share), rel=0.03)


@pytest.mark.parametrize("servers", [13, 14, 16])
@pytest.mark.parametrize("kind", ["exponential", "constant"])
def test_waiting_for_a_connection(kind: str, servers: int) -> None:
    rng, rate, holding = random.Random(7), 500.0, 0.025
    free = [0.0] * servers
    now, waits, count = 0.0, [], 400_000
    for _ in range(count):
        now += rng.expovariate(rate)
        start = max(now, heapq.heappop(free))
        waits.append(start - now)
        heapq.heappush(free, start + (rng.expovariate(1 / holding) if kind == "exponential" else holding))
    model = queueing.mm_c_wait if kind == "exponential" else queueing.md_c_wait
    other = queueing.md_c_wait if kind == "exponential" else queueing.mm_c_wait
    # At 96 % utilisation, consecutive waits are strongly correlated: the mean of 400,000 requests still varies by
    # several per cent.
    assert statistics.fmean(waits) == pytest.approx(model(rate, holding, servers), rel=0.15 if servers == 13 else 0.05)
    assert statistics.fmean(waits) != pytest.approx(other(rate, holding, servers), rel=0.30)
    if kind == "exponential" and servers == 16:
        p99 = sorted(waits)[int(0.99 * count)]
        assert p99 == pytest.approx(queueing.mm_c_wait_quantile(rate, holding, servers, 0.99), rel=0.08)


@pytest.mark.parametrize(("rate", "timeout", "rtt"), [(0.2, 5, 0.1), (1, 5, 0.5), (0.05, 5, 0.12)])
def test_the_keep_alive_race(rate: float, timeout: float, rtt: float) -> None:
    """Simulate a request and the server's FIN that cross on the path."""
    rng, raced, count = random.Random(1), 0, 200_000
    for _ in range(count):
        gap = rng.expovariate(rate)
        # Times are on the server's clock: its response left at 0, so the client's idle period began half a round trip
        # later.
        sent = rtt / 2 + gap
        arrives, fin_sent, fin_seen = sent + rtt / 2, timeout, timeout + rtt / 2
        raced += arrives > fin_sent and sent < fin_seen
    share = keepalive.race_share(rate, timeout, rtt)
    assert raced / count == pytest.approx(share, abs=4 * math.sqrt(share / count))


@pytest.mark.parametrize("size", [1, 14_480, 14_481, 50_000, 217_201, 5_000_000])
@pytest.mark.parametrize("window", [10, 160])
def test_the_window_grows_by_each_acknowledged_segment(size: int, window: int) -> None:
    left, cwnd, simulated = math.ceil(size / 1448), window, 0
    while left > 0:
        sent = min(left, cwnd)
        left, cwnd, simulated = left - sent, cwnd + sent, simulated + 1
    assert simulated == slow_start.rounds(size, window=window)
    assert cwnd == slow_start.window_after(size, window=window)


@pytest.mark.parametrize(("window", "rtt", "bandwidth"), [(65_536, 0.1, 1e9), (1_000_000, 0.02, 50e6)])
def test_a_receive_window_limits_the_rate(window: int, rtt: float, bandwidth: float) -> None:
    """Simulate a sender in which each segment waits until the segment one window earlier is acknowledged."""
    segment = 1024
    allowed, left_at = window // segment, 0.0
    done: list[float] = []
    for number in range(6000):
        if number >= allowed:
            left_at = max(left_at, done[number - allowed])
        left_at += segment * 8 / bandwidth
        done.append(left_at + rtt)
    throughput = 4000 * segment * 8 / (done[5999] - done[1999])
    assert throughput == pytest.approx(flow_control.throughput_bps(window, rtt, bandwidth), rel=0.02)


@pytest.mark.parametrize(("pause", "buffer", "rate"), [(2.0, 131_072, 10e6), (0.5, 65_536, 4e6)])
def test_a_pausing_reader_stops_the_sender(pause: float, buffer: int, rate: float) -> None:
    step, held, filled = 0.0005, 0.0, 0.0
    for _ in range(round(pause / step)):
        if filled + rate * step / 8 > buffer:
            held += step
        else:
            filled += rate * step / 8
    assert held == pytest.approx(flow_control.limited_s(pause, buffer, rate), abs=0.002)


@pytest.mark.parametrize("interval", [0.002, 0.005, 0.02, 0.1, 0.19, 0.5])
@pytest.mark.parametrize("rtt", [0.02, 0.06, 0.3])
def test_a_lost_message_is_repaired_by_the_first_of_three_signals(rtt: float, interval: float) -> None:
    """Simulate, in small time steps, a sender whose message 0 is lost and whose later messages are acknowledged."""
    step, now = 0.0005, 0.0
    while True:
        acknowledged = [n * interval for n in range(1, 40) if n * interval + rtt <= now + 1e-9]
        raced = acknowledged and now >= rtt + rtt / 4 - 1e-9  # RACK: message 0 is overdue by RTT/4
        if len(acknowledged) >= 3 or raced or now >= rtt + 0.2 - 1e-9:
            break
        now += step
    assert now == pytest.approx(recovery.lost_message_s(rtt, interval), abs=2 * step)


@pytest.mark.parametrize("loss", [0.001, 0.01])
def test_the_sawtooth_of_reno(loss: float) -> None:
    """Simulate evenly spaced losses, as in Mathis et al., and independent losses, with a 7 % larger mean window."""
    for kind, factor in (("regular", 1.0), ("by chance", congestion.RENO_BY_CHANCE)):
        rng, window, sent, until, rounds = random.Random(3), 20.0, 0.0, 1 / loss, 0
        for _ in range(60_000):
            sent, rounds, until, window = sent + window, rounds + 1, until - window, window + 1
            if until <= 0:
                window, until = window / 2, until + (1 / loss if kind == "regular" else rng.expovariate(loss))
        assert sent / rounds == pytest.approx(factor * congestion.reno_window(loss), rel=0.03), kind


@pytest.mark.parametrize(("loss", "rtt"), [(1e-4, 0.1), (1e-5, 0.1), (1e-6, 0.02)])
def test_the_curve_of_cubic(loss: float, rtt: float) -> None:
    """Simulate the window growth of RFC 9438 sections 4.2 and 4.6, round by round.

    Evenly spaced losses give the mean of the RFC. With independent losses, the window sometimes grows far beyond the
    last peak, where growth is steep; the mean is then about a quarter larger.
    """
    share = (3 + congestion.CUBIC_BETA) / 4
    for kind, rel, factor in (("regular", 0.005, 1), ("by chance", 0.05, congestion.CUBIC_BY_CHANCE)):
        rng, peak = random.Random(1), congestion.cubic_window(loss, rtt) / share
        since, until, sent, rounds = 0.0, 1 / loss, 0.0, 0
        for _ in range(60_000):
            back = (peak * (1 - congestion.CUBIC_BETA) / congestion.CUBIC_C) ** (1 / 3)
            window = congestion.CUBIC_C * (since - back) ** 3 + peak
            sent, rounds, since, until = sent + window, rounds + 1, since + rtt, until - window
            if until <= 0:
                peak, since, until = window, 0.0, 1 / loss if kind == "regular" else rng.expovariate(loss)
        assert sent / rounds == pytest.approx(factor * congestion.cubic_window(loss, rtt), rel=rel), kind


@pytest.mark.parametrize(
    ("name", "loss", "rtt", "rounds"),
    [("Reno", 0.004, 0.08, 200), ("Reno", 0.01, 0.1, 1000), ("CUBIC", 0.004, 0.08, 200), ("CUBIC", 0.001, 0.2, 400)],
)
def test_the_scatter_of_throughputs_over_few_losses(name: str, loss: float, rtt: float, rounds: int) -> None:
    """Simulate short uploads with independent losses, and compare each with the model for its own loss rate."""
    rng, ratios, counts = random.Random(4), [], []
    kept = congestion.CUBIC_BETA if name == "CUBIC" else 0.5
    for _ in range(300):
        window = peak = friendly = congestion.reno_window(loss)
        since, sent, losses = 0.0, 0.0, 0
        for _ in range(rounds):
            sent += window
            if rng.random() < 1 - (1 - loss) ** window:
                losses, peak, since, window = losses + 1, window, 0.0, max(2.0, window * kept)
                friendly = window
                continue
            since += rtt
            friendly += 3 * (1 - kept) / (1 + kept)  # one segment per round for Reno
            back = (peak * (1 - kept) / congestion.CUBIC_C) ** (1 / 3)
            cubic = congestion.CUBIC_C * (since - back) ** 3 + peak if name == "CUBIC" else 0.0
            window = max(friendly, cubic)
        if losses:
            own = losses / sent
            model = congestion.cubic_window_by_chance(own, rtt)
            model = model if name == "CUBIC" else congestion.reno_window_by_chance(own)
            ratios.append(sent / rounds / model)
            counts.append(losses)
    mean = sum(ratios) / len(ratios)
    assert mean == pytest.approx(1, abs=0.15)
    scatter = math.sqrt(sum((each - mean) ** 2 for each in ratios) / len(ratios)) / mean
    assert scatter < congestion.standard_error(name, round(sum(counts) / len(counts)))


@pytest.mark.parametrize(("delay", "interval", "loss"), [(0.05, 1 / 60, 0.01), (0.02, 0.05, 0.2), (0.05, 1 / 60, 0)])
def test_the_age_of_snapshots_over_udp(delay: float, interval: float, loss: float) -> None:
    rng, count = random.Random(9), 200_000
    arrived = [n for n in range(count) if rng.random() >= loss]
    # Between two arrivals the earlier snapshot is the newest; its age starts at the one-way delay.
    area = sum((b - a) * interval * (delay + (b - a) * interval / 2) for a, b in pairwise(arrived))
    span = (arrived[-1] - arrived[0]) * interval
    assert area / span == pytest.approx(snapshots.udp_age(delay, interval, loss), rel=0.005)
    looks = sorted(_age_at(rng.random() * span, arrived, interval, delay) for _ in range(20_000))
    for quantile in (0.5, 0.9, 0.99):
        age = snapshots.udp_age_quantile(delay, interval, loss, quantile)
        assert looks[int(quantile * len(looks))] == pytest.approx(age, abs=0.05 * interval + 0.002)
        assert snapshots.udp_age_exceeds(age - delay, interval, loss) == pytest.approx(1 - quantile)


def _age_at(moment: float, arrived: list[int], interval: float, delay: float) -> float:
    low, high = 0, len(arrived)
    sent = arrived[0] * interval + moment
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if arrived[middle] * interval <= sent else (low, middle)
    return delay + sent - arrived[low] * interval


@pytest.mark.parametrize(("delay", "interval", "loss"), [(0.05, 1 / 60, 0.01), (0.01, 1 / 30, 0.02)])
def test_the_age_of_snapshots_over_tcp(delay: float, interval: float, loss: float) -> None:
    """Simulate losses that delay all later segments until the retransmission, which may be lost again."""
    rng, ready, area, newest = random.Random(4), 0.0, 0.0, -1
    count, again = 200_000, recovery.lost_message_s(2 * delay, interval)
    releases = []
    for number in range(count):
        arrives = number * interval + delay
        while rng.random() < loss:
            arrives += again
        ready = max(ready, arrives)
        releases.append(ready)
    for number, (at, following) in enumerate(pairwise(releases)):
        # This snapshot is the newest until the next one is released; the area below its age is a trapezium.
        newest = number
        area += (following - at) * ((at + following) / 2 - newest * interval)
    age = area / (releases[-1] - releases[0])
    assert age == pytest.approx(snapshots.tcp_age(delay, interval, loss), rel=0.02)


@pytest.mark.parametrize("damage", ["bitflip", "swap16", "plusminus", "random"])
def test_which_corruption_passes_the_internet_checksum(damage: integrity.Damage) -> None:
    rng, count = random.Random(6), 2_000 if damage != "random" else 40_000
    passed = 0
    for _ in range(count):
        words = [rng.randrange(65_536) for _ in range(4)]
        wrong = words.copy()
        if damage == "bitflip":
            wrong[rng.randrange(4)] ^= 1 << rng.randrange(16)
        elif damage == "swap16":
            wrong[0], wrong[2] = wrong[2], wrong[0]
        elif damage == "plusminus":
            words[1:3] = wrong[1:3] = [rng.randrange(65_535), rng.randrange(1, 65_536)]
            wrong[1], wrong[2] = wrong[1] + 1, wrong[2] - 1
        else:
            wrong[rng.randrange(4)] = rng.randrange(65_536)
        passed += checksum(_packed(words)) == checksum(_packed(wrong)) and words != wrong
    expected = count * integrity.passes(damage, "checksum")
    assert abs(passed - expected) <= 4 * math.sqrt(expected) + (0 if damage != "swap16" else 1)


def _packed(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(2, "big") for word in words)


@pytest.mark.parametrize("damage", ["swap16", "bitflip"])
def test_a_tls_connection_survives_only_corruption_that_tcp_repairs(damage: integrity.Damage) -> None:
    rng, share, segments, connections = random.Random(8), 0.05, 20, 4000
    alive = sends = 0
    for _ in range(connections):
        wrong = False
        for _ in range(segments):
            sends += 1
            while rng.random() < share:
                if damage == "swap16":  # the corruption passes the checksum, but the TLS tag is invalid
                    wrong = True
                    break
                sends += 1  # the checksum detects the corruption, and TCP retransmits
        alive += not wrong
    expected = integrity.connection_survives(share, segments, damage)
    assert alive / connections == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / connections))
    assert sends / connections / segments == pytest.approx(integrity.sends_per_segment(share, damage), rel=0.01)


@pytest.mark.parametrize("rounding", ["exact", "down", "up"])
@pytest.mark.parametrize("seconds", [2, 30])
def test_hit_rate_by_rounding_of_the_ttl(seconds: int, rounding: ttl.Rounding) -> None:
    rng, now, expires, hits, count = random.Random(3), 0.0, 0.0, 0, 60_000
    for _ in range(count):
        now += rng.expovariate(0.1)
        if now < expires:
            hits += 1
        else:
            expires = {
                "exact": now + seconds,
                "down": math.floor(now) + seconds,
                "up": math.floor(now) + 1 + seconds,
            }[rounding]
    assert hits / count == pytest.approx(ttl.hit_rate(0.1, ttl.lifetime(seconds, rounding)), abs=0.007)


@pytest.mark.parametrize(("rate", "others"), [(0.1, 0.0), (0.1, 0.1), (0.1, 5.0), (0.02, 5.0), (1.0, 0.5)])
def test_hit_rate_behind_a_cache_that_counts_down(rate: float, others: float) -> None:
    rng, seconds, count = random.Random(2), 30.0, 30_000
    now = client_expires = resolver_expires = 0.0
    hits = 0
    for _ in range(count):
        now += rng.expovariate(rate)
        if now < client_expires:
            hits += 1
            continue
        while others and resolver_expires <= now:  # the first query of another client refills the resolver's cache
            asked = resolver_expires + rng.expovariate(others)
            if asked > now:
                break
            resolver_expires = asked + seconds
        if resolver_expires <= now:
            resolver_expires = now + seconds
        client_expires = resolver_expires
    assert hits / count == pytest.approx(ttl.hit_rate_behind(rate, seconds, others), abs=0.012)


def test_the_share_of_stale_caches_and_of_answers_in_an_outage() -> None:
    """The share of caches with the old record falls linearly after a change or the start of an outage."""
    rng, rate, seconds, caches = random.Random(5), 0.05, 60.0, 6000
    expiries = []
    for _ in range(caches):
        now, expires = 0.0, 0.0
        while (now := now + rng.expovariate(rate)) < 1000:
            if now >= expires:
                expires = now + seconds
        expiries.append(expires - 1000)
    for later in (0, 15, 30, 45, 59):
        held = sum(left > later for left in expiries) / caches
        assert held == pytest.approx(ttl.stale_share(rate, seconds, later), abs=0.025)
        assert held == pytest.approx(outage.answered_share(rate, seconds, later), abs=0.025)
    failed = statistics.fmean(1 - min(max(left, 0), 120) / 120 for left in expiries)
    assert failed == pytest.approx(outage.mean_failed_share(rate, seconds, 120), abs=0.015)
    assert statistics.fmean(max(0, left) for left in expiries) == pytest.approx(
        ttl.cost(rate, seconds).stale_s, rel=0.03
    )


def test_clients_that_ignore_the_ttl() -> None:
    rng, clients = random.Random(1), 20_000
    classes, never = [(0.5, 30.0), (0.3, 120.0)], 0.2
    moves = []  # seconds until each client looks up the name again, uniform within the client's own period
    for _ in range(clients):
        kind = rng.random()
        moves.append(rng.random() * 30 if kind < 0.5 else rng.random() * 120 if kind < 0.8 else math.inf)
    for seconds in (0, 10, 30, 60, 200):
        old = sum(move > seconds for move in moves) / clients
        assert old == pytest.approx(ttl.stale_clients(classes, seconds, never), abs=0.015)


@pytest.mark.parametrize("hold", [0.0, 8.0, 3.0, math.inf], ids=["honours", "keeps-longer", "keeps-shorter", "never"])
@pytest.mark.parametrize(("rate", "others"), [(0.5, 1.0), (0.1, 5.0)])
def test_requests_to_the_old_address_follow_from_two_delays(hold: float, rate: float, others: float) -> None:
    """Simulate a shared resolver, a client with its own hold time, and a change at a random moment."""
    rng, seconds, moments = random.Random(6), 4.0, (0.0, 1.0, 3.0, 4.5, 8.0, 11.0)
    old, clients = [0] * len(moments), 6000
    for _ in range(clients):
        change = 60.0 + 20 * rng.random()  # the record expires periodically, so changes are drawn from all phases
        # Intervals (from, until) in which the resolver's cache holds the record.
        stays, now = [], 0.0
        while now < change + 15:
            now += rng.expovariate(others)
            stays.append((now, now + seconds))
            now += seconds

        def asked(at: float, stays: list[tuple[float, float]] = stays, change: float = change) -> tuple[bool, float]:
            """Return whether the resolver returns the old address, and the time until which it may be cached."""
            for begin, end in stays:
                if begin <= at < end:
                    return begin < change, end
            return at < change, at

        requests: list[tuple[float, int | None]] = []
        now = 0.0
        while now < change + 15:
            now += rng.expovariate(rate)
            requests.append((now, None))
        requests += [(change + each, i) for i, each in enumerate(moments)]  # these requests do not change the client
        held_old, until = True, math.inf if math.isinf(hold) else 0.0
        for at, looked in sorted(requests, key=lambda each: each[0]):
            if looked is not None:
                old[looked] += held_old if at < until else asked(at)[0]
            elif at >= until:
                held_old, end = asked(at)
                until = at + hold if hold else end
    model = [ttl.old_share(t, seconds, hold, rate, others) for t in moments]
    assert [count / clients for count in old] == pytest.approx(model, abs=0.025)


@pytest.mark.parametrize(("hold", "rate", "others"), [(0.0, 0.5, 2.0), (8.0, 0.5, 1.0), (2.0, 3.0, 0.3)])
def test_mean_seconds_on_the_old_address_are_the_area_below_its_share(hold: float, rate: float, others: float) -> None:
    area = sum(ttl.old_share(0.005 + i / 100, 4.0, hold, rate, others) for i in range(1600)) / 100
    assert area == pytest.approx(ttl.old_seconds(4.0, hold, rate, others), rel=0.001)


@pytest.mark.parametrize(("rate", "every"), [(0.4, 5.0), (0.4, 100.0), (20.0, 3600.0)])
def test_no_other_ttl_costs_less_than_the_best(rate: float, every: float) -> None:
    def both(seconds: float) -> float:
        return 1 - ttl.hit_rate(rate, seconds) + ttl.wrong_share(rate, seconds, every)

    best = ttl.best(rate, every)
    assert both(best) <= min(both(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_a_lagging_secondary_prolongs_staleness() -> None:
    rng, seconds, lag, share, caches = random.Random(4), 60.0, 25.0, 0.5, 20_000
    new_from = []
    for _ in range(caches):
        at = rng.random() * seconds  # seconds until the cache's first expiry after the change
        while at < lag and rng.random() < share:
            at += seconds
        new_from.append(at)
    for moment in (0, 10, 25, 50, 60, 70, 84, 86):
        old = sum(at > moment for at in new_from) / caches
        assert old == pytest.approx(propagation.stale_share(moment, seconds, lag, share), abs=0.015)


@pytest.mark.parametrize(("loss", "retry", "tries"), [(0.0, None, 1), (0.3, None, 1), (0.5, 15.0, 4), (1.0, 15.0, 4)])
def test_the_lag_of_a_secondary(loss: float, retry: float | None, tries: int) -> None:
    rng, rtt, refresh, count = random.Random(3), 0.1, 600.0, 40_000
    total = 0.0
    for _ in range(count):
        lost = next((n for n in range(tries) if rng.random() >= loss), None)
        looked = rng.random() * refresh if lost is None else lost * (retry or 0) + rtt / 2
        total += looked + rtt + 2 * rtt
    assert total / count == pytest.approx(propagation.mean_lag(rtt, refresh, loss, retry, tries), rel=0.03)


@pytest.mark.parametrize(("loss", "tries"), [(0.9, 7), (0.5, 3)])
def test_retries_against_partial_loss(loss: float, tries: int) -> None:
    rng, count = random.Random(2), 40_000
    resolved = sum(any(rng.random() >= loss for _ in range(tries)) for _ in range(count))
    assert resolved / count == pytest.approx(outage.resolved_share(loss, tries), abs=0.01)


@pytest.mark.parametrize(("down", "tries"), [(1, 1), (2, 2), (3, 2)])
def test_retries_against_dead_servers(down: int, tries: int) -> None:
    rng, count = random.Random(2), 30_000
    resolved = sum(max(rng.sample(range(4), tries)) >= down for _ in range(count))
    assert resolved / count == pytest.approx(outage.resolved_share_of_servers(down, 4, tries), abs=0.012)


def test_open_and_closed_loops_see_a_stall() -> None:
    stall, window, gap, begin = 5.0, 60.0, 0.01, 20.0
    due = [n * gap for n in range(round(window / gap))]
    open_loop = sorted(max(0.0, begin + stall - at) if at >= begin else 0.0 for at in due)
    for quantile in (0.5, 0.95, 0.99):
        expected = omission.open_loop_quantile(quantile, stall, window)
        assert open_loop[int(quantile * len(open_loop))] == pytest.approx(expected, abs=0.02)
    now, closed = 0.0, []
    while now < window:
        latency = begin + stall - now if begin <= now < begin + stall else 0.0
        closed.append(latency)
        now += latency + gap
    assert len(due) - len(closed) == pytest.approx(omission.omitted(stall, gap), abs=2)
    for quantile in (0.5, 0.95, 0.99):
        assert sorted(closed)[int(quantile * len(closed))] == omission.closed_loop_quantile(
            quantile, stall, window, gap
        )


@pytest.mark.parametrize(("rate", "seconds", "ports"), [(32, 150, 1024), (64, 14, 256)])
def test_ports_held_by_a_server_that_closes_first(rate: float, seconds: float, ports: int) -> None:
    rng = random.Random(1)
    drawn = round(rate * min(seconds, 60))
    held = statistics.mean(len({rng.randrange(ports) for _ in range(drawn)}) for _ in range(200))
    assert time_wait.ports_held(rate, seconds, ports) == pytest.approx(held, rel=0.01)


def test_a_deleted_record_comes_back_when_negative_answers_expire() -> None:
    """Simulate, in small time steps, a client that queries continuously."""
    rng, gone, seconds, negative = random.Random(3), 12.0, 4.0, 10.0
    step, lost = 0.01, []
    for _ in range(200):
        expires = rng.random() * seconds
        now, until, cached = expires, 0.0, False
        while not cached:
            if now >= until:
                cached, until = now >= gone, now + negative
            now += 0 if cached else step
        lost.append((expires, now))
        assert now - expires == pytest.approx(propagation.without_record_s(expires, gone, negative), abs=0.05)
    for at in (1.0, 11.0, 13.0, 15.5, 21.0):
        share = sum(begin <= at < end for begin, end in lost) / len(lost)
        assert share == pytest.approx(propagation.share_without_record(at, gone, seconds, negative), abs=0.1)


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at-once", "after-a-pause"])
@pytest.mark.parametrize("factor", [0.5, 0.9, 0.98, 1.02, 1.5, 3.0])
def test_a_storm_sustains_itself_above_the_tipping_point(factor: float, pause: float) -> None:
    capacity, timeout = 1000.0, 0.5
    clients = round(factor * reconnect.tipping_point(capacity, timeout, pause))
    found = reconnect.storm(clients, capacity, timeout, lambda _: pause, 60.0)
    if factor < 1:
        assert len(found.connected) == clients
    else:
        assert len(found.connected) == pytest.approx(capacity * timeout, abs=1)
        assert found.wasted == pytest.approx(capacity * (60 - timeout), rel=0.01)


def test_each_cure_ends_a_storm_in_the_time_that_the_handshakes_take() -> None:
    clients, capacity, timeout = 3000, 1000.0, 0.5
    rng = random.Random(3)
    refused = reconnect.storm(clients, capacity, timeout, lambda _: 0.1 * rng.random(), 60, limit=400, refuses=True)
    patient = reconnect.storm(clients, capacity, clients / capacity + 0.1, lambda _: 0.0, 60)
    for each in (refused, patient):
        assert each.until(1, clients) == pytest.approx(clients / capacity, rel=0.02)
        assert each.wasted == 0
    short = reconnect.storm(clients, capacity, timeout, lambda _: 0.0, 60, limit=400)
    assert short.until(1, clients) == pytest.approx(7 * timeout + 0.2, abs=0.01)
    assert short.wasted == 0
    back_off = reconnect.storm(clients, capacity, timeout, reconnect.back_off(1, 8, rng.random), 60)
    assert clients / capacity < back_off.until(0.95, clients) < 30
