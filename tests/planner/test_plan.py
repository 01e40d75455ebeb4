"""Tests for plans: values computed by hand, intervals, contradictions, and commands that check the models."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstbyte import cli
from firstbyte.experiment import KINDS
from planner.calibration import Calibration
from planner.inputs import INPUTS, InputsError, option
from planner.plan import Plan, plan, verify_command
from planner.quantities import Range
from planner.rows import TOPICS

#: Costs in round numbers, so that expected values can be computed by hand.
COSTS = Calibration(
    "a machine",
    "2026-01-01T00:00:00Z",
    {"1.3 ecdsa full": Range(0.0002, 0.0002), "1.3 ecdsa resumed": Range(0.0001, 0.0001)},
    Range(1e-9, 1e-9),
)
#: Rows whose value may have its maximum inside a range, so that samples do not bound it exactly.
HUMPED = {"race_share", "races"}


def made(**given: str) -> Plan:
    return plan(given, COSTS)


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        # 10 M clients with 0.002 requests/s each send a lookup every 60 + 500 s
        ("lookups", 1e7 / 560, 1e7 / 560),
        ("authority", 1000 / (60 + 1000 * 560 / 1e7), 1000 / (60 + 1000 * 560 / 1e7)),
        ("opened", 2000, 2000),
        ("waiting", 120_000 - 1.96 * math.sqrt(120_000), 128_000 + 1.96 * math.sqrt(128_000)),
        ("unpooled", 28_232, 28_232),
        ("exhausted", 1.4116, 1.4116),
        ("sources", 43, 46),
        ("in_use", 520 - 1.96 * math.sqrt(520), 520 + 1.96 * math.sqrt(520)),
        ("safe_idle", 59.999, 59.999),
        ("ttfb_new", 0.116, 0.116),
        ("ttfb_open", 0.056, 0.056),
        ("rounds", 3, 3),
        ("first_rate", 10 * 1448 * 8 / 0.03, 10 * 1448 * 8 / 0.03),
        ("full", 1000, 1000),
        ("cores_handshakes", 0.3, 0.3),
        ("cores_bytes", 1.0, 1.0),
        ("one_percent", 99 * 0.0002 / 1e-9, 99 * 0.0002 / 1e-9),
        ("storm", 100 / (47 * 0.67) / 3600, 100 / (47 * 0.67) / 3600),
        ("expired", 0, 0),
    ],
)
def test_rows_agree_with_arithmetic_by_hand(key: str, low: float, high: float) -> None:
    value = made(rps="20k", clients="10M").row(key).value
    assert value is not None
    assert (value.low, value.high) == pytest.approx((low, high), rel=1e-3)


def test_the_pool_meets_its_wait_in_a_simulated_queue() -> None:
    size = made(rps="200", hold="24ms", backhaul="1ms", pool_wait="2ms").row("pool").value
    assert size is not None
    mean = {servers: simulated_wait(200, 0.025, servers) for servers in (int(size.low) - 1, int(size.low))}
    assert mean[int(size.low)] < 0.002 < mean[int(size.low) - 1]


def simulated_wait(rate: float, holding: float, servers: int) -> float:
    """Return the mean wait of 200,000 requests for a connection, in a simulation of all *servers* connections."""
    rng, free, now, waited, count = random.Random(1), [0.0] * servers, 0.0, 0.0, 200_000
    for _ in range(count):
        now += rng.expovariate(rate)
        first = min(range(servers), key=free.__getitem__)
        begin = max(now, free[first])
        free[first] = begin + rng.expovariate(1 / holding)
        waited += begin - now
    return waited / count


@given(
    st.floats(10, 1e5),
    st.floats(1, 3),
    st.floats(0.0, 1.0),
    st.sampled_from(["rps", "rtt", "ttl", "keepalive", "hold"]),
)
def test_an_interval_holds_the_values_of_every_point_inside(rps: float, factor: float, place: float, name: str) -> None:
    base = {"rps": f"{rps:.3f}", "hold": "5ms", "clients": "10M"}
    low = {"rps": rps, "rtt": 0.01, "ttl": 20.0, "keepalive": 0.3, "hold": 0.002}[name]
    inside = low + place * low * (factor - 1)
    wide, one = made(**base | {name: f"{low:.6f}..{low * factor:.6f}"}), made(**base | {name: f"{inside:.6f}"})
    for row in one.rows:
        outer = wide.row(row.row.key)
        if row.value is None:
            assert outer.partly_none or outer.value is None
        elif row.row.key not in HUMPED | {"wait", "exhausted"}:  # `wait` is discontinuous in the size of the pool
            assert outer.value is not None
            assert outer.value.low <= row.value.low * 1.001 + 1e-9
            assert row.value.high <= outer.value.high * 1.001 + 1e-9


def test_ports_that_run_out_only_in_a_part_of_the_range_say_so() -> None:
    row = made(rps="400..1k").row("exhausted")
    assert row.partly_none
    assert row.text().endswith(" s, or never")
    assert made(rps="400").row("exhausted").text() == "never"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rps": "x"}, "--rps: expected a rate"),
        ({"rps": "0"}, "--rps: expected 0.001 to 1e+09"),
        ({"keepalive": "1.5"}, "--keepalive: expected 0 to 1"),
        ({"sources": "1.5"}, "--sources: expected a whole number"),
        ({"ttl": "30d"}, "--ttl: expected 0 to 604800 seconds"),
        ({"clients": "10", "resolvers": "100"}, "--resolvers 100: expected at most one for each"),
        ({"backhaul": "2s", "idle_timeout": "1s"}, "--idle-timeout 1 s is not above --backhaul 2 s"),
        ({"lifetime": "60s", "spread": "1h"}, "--spread 3600 s: expected less than --lifetime 60 s"),
        ({"rps": "2..1"}, "first value is the larger"),
        (dict.fromkeys(("rps", "clients", "rtt", "sources", "hold"), "1..2"), "expected at most 4 ranges"),
    ],
)
def test_wrong_or_contradictory_input_is_refused_in_one_line(given: dict[str, str], expected: str) -> None:
    with pytest.raises(InputsError) as error:
        made(**given)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pool_smaller_than_its_load_is_refused_with_the_load() -> None:
    with pytest.raises(InputsError, match=r"--pool 20 cannot carry --rps 1000: 26 connections are in use"):
        plan({}, COSTS, pool=20)
    assert plan({}, COSTS, pool=40).row("pool").text() == "40 connections"


@pytest.mark.parametrize("blamed", [{"key": "rsa"}, {"resumed": "0.5"}])
def test_options_of_a_handshake_that_does_not_happen_are_refused(blamed: dict[str, str]) -> None:
    with pytest.raises(InputsError, match="has no meaning with --tls none"):
        plan({k: v for k, v in blamed.items() if k != "key"}, COSTS, tls="none", key="rsa" if "key" in blamed else None)
    assert plan({}, COSTS, tls="none").row("cores_handshakes").value == Range(0, 0)


def test_every_topic_is_checked_by_an_experiment_that_exists() -> None:
    for topic in TOPICS:
        arguments = cli.parse(verify_command(topic).split()[1:])
        assert arguments.name in {kind.name for kind in KINDS[arguments.command]}


def test_every_row_reaches_the_json_with_its_formula_and_its_check() -> None:
    rows = json.loads(json.dumps(made().as_json()))["rows"]
    assert len({row["key"] for row in rows}) == len(rows) == sum(len(topic.rows) for topic in TOPICS)
    assert all(row["formula"] and row["assumes"] and row["verify"].startswith("firstbyte ") for row in rows)


def test_every_input_is_an_option_that_shows_its_default() -> None:
    arguments = cli.parse(["plan", *(word for each in INPUTS for word in (option(each.name), each.default))])
    assert [getattr(arguments, each.name) for each in INPUTS] == [each.default for each in INPUTS]


def test_costs_of_the_machine_widen_the_rows_that_depend_on_them() -> None:
    wide = replace(COSTS, handshakes={"1.3 ecdsa full": Range(0.0001, 0.0003), "1.3 ecdsa resumed": Range(0.0, 0.0)})
    value = plan({"rps": "20k"}, wide).row("cores_handshakes").value
    assert value is not None
    assert (value.low, value.high) == pytest.approx((0.1, 0.3))
