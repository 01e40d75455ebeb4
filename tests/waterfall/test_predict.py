"""Tests for predictions, which depend on the configured links and not on measured times."""

import ipaddress

import pytest

from waterfall.lab import Links
from waterfall.model import Hop, Phase, Trace, summary
from waterfall.predict import hops_of, predict

REGIONS = {
    name: ipaddress.IPv4Network(f"198.19.{third}.0/24")
    for name, third in {"access": 1, "isp": 2, "root-a": 10, "registry": 12, "near": 20, "far": 30}.items()
}
PAIRS = {
    ("access", "isp"): 4.0,
    ("access", "near"): 20.0,
    ("access", "far"): 120.0,
    ("isp", "near"): 16.0,
    ("isp", "root-a"): 10.0,
    ("isp", "registry"): 20.0,
    ("near", "far"): 100.0,
}
LINKS = Links(REGIONS, {**PAIRS, **{(b, a): rtt for (a, b), rtt in PAIRS.items()}})
CLIENT, RESOLVER, EDGE, FAR = "198.19.1.10", "198.19.2.53", "198.19.20.10", "198.19.30.10"
WALK = [
    Hop("198.19.10.53", "a.root-servers.test.", ".", "www.example.com.", "A", "NOERROR", 10.8, kind="referral"),
    Hop("198.19.12.53", "a.gtld-servers.test.", "com.", "www.example.com.", "A", "NOERROR", 20.9, kind="referral"),
    Hop("198.19.20.53", "ns1.example.com.", "example.com.", "www.example.com.", "A", "NOERROR", 16.8, kind="answer"),
]


def measured(server: str, version: str | None, *, resumed=False, cached=False, timing=None, size=0, closed_by="client"):
    trace = Trace("https://www.example.com/")
    tls = [Phase("tls", 0, 99, detail={"version": version, "resumed": resumed})] if version else []
    trace.phases = [
        Phase("dns", 0, 99, detail={"cached": cached, "hops": []}),
        Phase("connect", 0, 99, detail={"address": f"{server}:443", "local": f"{CLIENT}:40000"}),
        *tls,
        Phase("request", 0, 99),
        Phase("first_byte", 0, 99, detail={"server_timing": timing or {}}, bytes_received=500),
        Phase("body", 0, 99, bytes_received=size),
        Phase("close", 0, 99, detail={"closed_by": closed_by}),
    ]
    return trace


def predicted(trace: Trace, hops=(), **more) -> dict[str, float | None]:
    predict(trace, LINKS, client=CLIENT, resolver=RESOLVER, hops=hops, **more)
    return {phase.name: phase.predicted_ms for phase in trace.phases}


@pytest.mark.parametrize(
    ("version", "resumed", "trips"),
    [("TLSv1.2", False, 2), ("TLSv1.2", True, 1), ("TLSv1.3", False, 1), ("TLSv1.3", True, 1)],
    ids=str,
)
def test_tls_takes_whole_round_trips(version: str, resumed: bool, trips: int) -> None:
    for server, rtt in ((EDGE, 20.0), (FAR, 120.0)):
        found = predicted(measured(server, version, resumed=resumed))
        assert (found["connect"], found["tls"], found["first_byte"]) == (rtt, trips * rtt, rtt)


def test_an_uncached_name_costs_the_resolver_s_and_every_server_s_round_trip() -> None:
    trace = measured(EDGE, None)
    assert predicted(trace, WALK)["dns"] == 4 + 10 + 20 + 16
    assert trace.phase("dns").round_trips == 4
    assert trace.phase("dns").detail["hops"][0]["server_name"] == "a.root-servers.test."


def test_a_name_cached_by_the_stub_costs_nothing_and_by_the_resolver_one_round_trip() -> None:
    assert predicted(measured(EDGE, None, cached=True))["dns"] == 0
    assert predicted(measured(EDGE, None))["dns"] == 4


@pytest.mark.parametrize(
    ("timing", "upstreams", "asked", "behind"),
    [
        ({"connection": "reused"}, ["198.19.30.21"], False, 100),
        ({"connection": "fresh"}, ["198.19.30.21"], False, 300),
        ({"connection": "fresh"}, ["198.19.30.21"], True, 300 + 16 + 16),
        ({"connection": "fresh"}, ["198.19.20.21", "198.19.20.22"], False, 0),
        ({"connection": "fresh"}, ["198.19.20.21", "198.19.30.21"], False, None),
        ({}, [], False, 0),
    ],
    ids=["reused", "fresh", "fresh-and-name", "same-region", "which-one-is-unknown", "no-edge"],
)
def test_the_cost_behind_the_edge(timing, upstreams, asked, behind) -> None:
    hops = [WALK[2]] if asked else []
    found = predicted(
        measured(EDGE, None, timing=timing), upstreams=upstreams, upstream_hops=hops, upstream_names_asked=asked
    )
    assert found["first_byte"] == (None if behind is None else 20 + behind)


def test_a_body_takes_the_rounds_of_slow_start() -> None:
    assert predicted(measured(FAR, None, size=50_000))["body"] == 240
    assert predicted(measured(FAR, None, size=10_000))["body"] == 0


def test_the_side_that_closes_second_does_not_wait() -> None:
    assert predicted(measured(EDGE, None))["close"] == 20
    assert predicted(measured(EDGE, None, closed_by="server"))["close"] == 0


def test_outside_the_regions_nothing_is_predicted() -> None:
    found = predicted(measured("192.0.2.1", None))
    assert {name: found[name] for name in ("connect", "first_byte", "close")} == dict.fromkeys(
        ("connect", "first_byte", "close")
    )


def test_hops_belong_to_the_uncached_resolution() -> None:
    hop = {"server": "198.19.10.53", "server_name": "a.", "zone": ".", "qname": "x.", "qtype": "A",
           "rcode": "NOERROR", "rtt_ms": 1.0, "transport": "udp"}  # fmt: skip
    resolutions = [{"qname": "x.", "cached": True, "hops": []}, {"qname": "x.", "cached": False, "hops": [hop]}]
    assert [each.server for each in hops_of(resolutions, "X")] == ["198.19.10.53"]
    assert hops_of(resolutions, "y") == []


# --- the JSON -------------------------------------------------------------------------------------------------------

#: Keys of every phase that ``trace --json`` guarantees.
CONTRACT = {"name", "start_ms", "measured_ms", "predicted_ms", "residual_ms", "round_trips",
            "bytes_sent", "bytes_received", "cpu_ms", "detail"}  # fmt: skip
HOP = {"server", "zone", "qname", "qtype", "rcode", "rtt_ms", "cached"}


def test_the_json_has_the_fields_that_other_tools_use() -> None:
    trace = measured(EDGE, "TLSv1.3")
    predicted(trace, WALK)
    body = trace.as_json()
    assert all(set(phase) == CONTRACT for phase in body["phases"])
    assert [phase["name"] for phase in body["phases"]] == [
        "dns", "connect", "tls", "request", "first_byte", "body", "close",
    ]  # fmt: skip
    assert all(set(hop) >= HOP for hop in body["phases"][0]["detail"]["hops"])
    assert body["total_ms"] == 6 * 99, "the close is not part of it"


def test_residuals_are_measured_minus_predicted() -> None:
    trace = measured(EDGE, "TLSv1.3")
    predicted(trace, WALK)
    for phase in trace.as_json()["phases"]:
        assert phase["residual_ms"] == phase["measured_ms"] - phase["predicted_ms"]


def test_the_shares_add_up_to_one() -> None:
    trace = measured(EDGE, "TLSv1.3")
    assert trace.shares() == pytest.approx({"names": 0.2, "connections": 0.2, "identity": 0.2, "answer": 0.4})
    text = summary(trace.as_json(), None)
    assert (
        text == "Of 495 ms to the first byte, 20 % names, 20 % connections, 20 % identity; the answer itself took 40 %."
    )
