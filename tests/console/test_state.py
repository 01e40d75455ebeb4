"""Tests for the console's state: poll results as input, snapshots as output."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.hosts import Host, Hosts, Loss
from console.prometheus import Scrape, parse
from console.state import BOOT, State
from console.track import Sample
from tests.console.lab import certificate, link

OK = {"status": "ok", "checks": {"listener": {"ok": True, "detail": ""}}, "faults": []}
FAILING = {"status": "failing", "checks": {"listener": {"ok": False, "detail": "gone"}}, "faults": []}
REGIONS = {"exchange": "what watches", "isp": "provider", "near": "near data centre"}
HOSTS = Hosts(
    REGIONS,
    (
        Host("wan", "198.19.0.254", "wan.lab.test", "exchange", "wan", "nothing passes"),
        Host("console", "198.19.0.10", "console.lab.test", "exchange", "console", "blind"),
        Host("resolver", "198.19.2.53", "resolver.example.com", "isp", "resolver", "no names"),
        Host("edge", "198.19.20.10", "www.example.com", "near", "edge", "no answer"),
        Host("news", "198.19.20.31", "news.example.com", "near", "origin", "no news"),
    ),
    (Loss(frozenset({"edge", "news"}), "all is lost"),),
)
#: Start time of the console, and a time after the boot period; seconds since the epoch.
START, LATER = 1000.0, 1000.0 + BOOT + 1


def well(host: str, at: float, metrics: str = "", admin: dict[str, Any] | None = None, **changed: Any) -> Sample:
    return Sample(host, at, None, {**OK, **changed}, parse(metrics), admin or {})


def silent(host: str, at: float, error: str = "connection refused") -> Sample:
    return Sample(host, at, error)


class Lab:
    """A console state with hosts that all respond, except for hosts that a test names."""

    def __init__(self) -> None:
        self.state, self.at = State(HOSTS, START), START
        self.round()

    def round(self, *odd: Sample | str, at: float | None = None) -> dict[str, Any]:
        """Poll every host once; *odd* has samples to use for some hosts, and names of hosts that do not respond."""
        self.at = at if at is not None else self.at + 2
        samples = {sample.host: sample for sample in odd if isinstance(sample, Sample)}
        samples |= {name: silent(name, self.at) for name in odd if isinstance(name, str)}
        for host in HOSTS.hosts:
            self.state.observe(samples.get(host.name) or well(host.name, self.at))
        return self.state.snapshot(self.at)


def statuses(snapshot: dict[str, Any]) -> dict[str, str]:
    return {host["name"]: host["status"] for region in snapshot["regions"] for host in region["hosts"]}


def texts(snapshot: dict[str, Any]) -> list[str]:
    return [f"{alarm['subject']} {alarm['what']}" for alarm in snapshot["alarms"]]


def happened(snapshot: dict[str, Any]) -> list[str]:
    return [f"{event['host']} {event['text']}" for event in snapshot["events"]]


# --- hosts ----------------------------------------------------------------------------------------------------------


def test_before_any_host_answered_the_lab_is_starting() -> None:
    snapshot = State(HOSTS, START).snapshot(START)
    assert snapshot["verdict"] == {"level": "wait", "text": "Starting: 0 of 5 hosts have answered."}
    assert set(statuses(snapshot).values()) == {"waiting"}
    assert snapshot["alarms"] == []


def test_when_all_hosts_answer_the_verdict_is_ok() -> None:
    snapshot = Lab().round()
    assert snapshot["verdict"] == {"level": "ok", "text": "All 5 hosts are healthy."}
    assert snapshot["events"] == []


def test_a_host_that_does_not_answer_during_boot_raises_no_alarm() -> None:
    state = State(HOSTS, START)
    for at in (START + 1, START + 2, START + BOOT - 1):
        state.observe(silent("edge", at))
    assert state.snapshot(START + BOOT - 1)["alarms"] == []
    state.observe(silent("edge", LATER))
    snapshot = state.snapshot(LATER)
    assert texts(snapshot) == ["edge has not answered"]
    assert snapshot["alarms"][0]["since"] == START + 1


def test_a_host_is_down_after_two_misses_since_the_first() -> None:
    lab = Lab()
    assert lab.round("edge", at=LATER)["verdict"]["level"] == "ok"
    snapshot = lab.round("edge", at=LATER + 2)
    assert statuses(snapshot)["edge"] == "down"
    assert snapshot["alarms"][0]["since"] == LATER
    assert snapshot["verdict"] == {"level": "bad", "text": "4 of 5 hosts are healthy."}
    assert happened(snapshot) == ["edge is down: connection refused"]


def test_an_answer_in_between_resets_the_count() -> None:
    lab = Lab()
    lab.round("edge")
    lab.round()
    assert statuses(lab.round("edge"))["edge"] == "ok"


def test_a_host_that_is_back_shows_how_long_it_was_down() -> None:
    lab = Lab()
    lab.round("edge", at=2000)
    lab.round("edge", at=2002)
    snapshot = lab.round(at=2010)
    assert happened(snapshot) == ["edge is back after 10 s", "edge is down: connection refused"]
    assert snapshot["verdict"]["level"] == "ok"
    assert snapshot["alarms"] == []


def test_a_host_that_fails_its_health_checks_is_an_alarm() -> None:
    lab = Lab()
    snapshot = lab.round(Sample("edge", lab.at + 2, None, FAILING))
    assert texts(snapshot) == ["edge has been failing its health checks"]
    assert snapshot["alarms"][0]["why"] == "listener: gone"
    assert happened(lab.round()) == ["edge is healthy again", "edge fails its health checks"]


def test_hosts_with_a_loss_in_common_are_one_alarm() -> None:
    lab = Lab()
    lab.round("edge", "news")
    snapshot = lab.round("edge", "news")
    assert texts(snapshot) == ["edge and news have been down"]
    assert snapshot["alarms"][0]["means"] == "all is lost"


def test_a_refused_admin_request_is_an_alarm_about_the_console() -> None:
    lab = Lab()
    snapshot = lab.round(Sample("edge", lab.at + 2, None, OK, Scrape(), {}, "/admin/pool: it answered 401: token"))
    assert texts(snapshot) == ["the console cannot read the admin API of edge"]
    assert snapshot["verdict"]["level"] == "warn"


# --- the router -----------------------------------------------------------------------------------------------------


def test_while_the_router_is_down_no_other_host_is_called_down() -> None:
    lab = Lab()
    lab.round("wan", "resolver", "edge", "news")
    snapshot = lab.round("wan", "resolver", "edge", "news")
    assert texts(snapshot) == ["wan has been down"]
    assert snapshot["verdict"] == {"level": "bad", "text": "The router is down: 3 of 5 hosts cannot be seen."}
    assert statuses(snapshot) == {
        "wan": "down",
        "console": "ok",
        "resolver": "unseen",
        "edge": "unseen",
        "news": "unseen",
    }
    assert happened(snapshot) == ["wan is down: connection refused"]


def test_when_the_router_is_back_the_others_start_afresh() -> None:
    lab = Lab()
    for _ in range(3):
        lab.round("wan", "resolver", "edge", "news", at=lab.at + 2)
    # These hosts are polled together with the router, so their timeouts may end after the router's response.
    snapshot = lab.round("edge")
    assert snapshot["alarms"] == []
    snapshot = lab.round()
    assert set(statuses(snapshot).values()) == {"ok"}
    assert happened(snapshot)[0].startswith("wan is back after")
    assert len(happened(snapshot)) == 2


def test_a_host_that_went_down_with_the_router_is_reported_once_it_can_be_seen() -> None:
    lab = Lab()
    for _ in range(3):
        lab.round("wan", "edge")
    lab.round("edge")
    snapshot = lab.round("edge")
    assert texts(snapshot) == ["edge has been down"]
    assert happened(snapshot)[0] == "edge is down: connection refused"


def test_a_host_that_was_down_before_the_router_is_reported_when_it_is_back() -> None:
    lab = Lab()
    lab.round("edge")
    lab.round("edge")
    lab.round("edge", "wan")
    lab.round("edge", "wan")
    assert any(event.startswith("edge is back after") for event in happened(lab.round()))


# --- figures --------------------------------------------------------------------------------------------------------


def test_time_wait_has_a_history_and_no_value_while_the_host_is_down() -> None:
    lab = Lab()
    for tw in (5, 7):
        lab.round(well("edge", lab.at + 2, f'firstbyte_sockets{{state="tw"}} {tw}'))
    edge = lab.state.snapshot(lab.at)["regions"][2]["hosts"][0]
    assert (edge["tw"], edge["tw_history"]) == (7, [0, 5, 7])
    lab.round("edge")
    assert lab.round("edge")["regions"][2]["hosts"][0]["tw"] is None


def cache_metrics(hits: int, misses: int) -> str:
    return f"firstbyte_resolver_cache_hits_total {hits}\nfirstbyte_resolver_cache_misses_total {misses}"


def test_the_hit_rate_is_that_of_the_last_minute() -> None:
    lab = Lab()
    lab.round(well("resolver", lab.at + 2, cache_metrics(1000, 0)))
    snapshot = lab.round(well("resolver", lab.at + 2, cache_metrics(1003, 1)))
    assert snapshot["cache"]["hit_rate"] == 0.75
    assert snapshot["cache"]["queries_per_s"] == 2


def test_without_queries_there_is_no_hit_rate() -> None:
    lab = Lab()
    for _ in range(2):
        lab.round(well("resolver", lab.at + 2, cache_metrics(5, 5)))
    assert lab.state.snapshot(lab.at)["cache"]["hit_rate"] is None


def test_counters_of_a_restarted_resolver_start_afresh() -> None:
    lab = Lab()
    lab.round(well("resolver", lab.at + 2, cache_metrics(100, 100)))
    lab.round(well("resolver", lab.at + 2, cache_metrics(0, 1)))
    snapshot = lab.round(well("resolver", lab.at + 2, cache_metrics(1, 1)))
    assert snapshot["cache"]["hit_rate"] == 1


def test_a_certificate_shows_how_much_of_its_lifetime_is_over() -> None:
    lab = Lab()
    at = lab.at + 2
    snapshot = lab.round(well("edge", at, admin={"/admin/certificate": certificate(at, left=2700)}))
    (entry,) = snapshot["certificates"]
    assert entry["seconds_left"] == 2700
    assert entry["used"] == pytest.approx(0.25)
    assert entry["renew_at"] == pytest.approx(0.5)


def test_time_to_expiry_decreases_between_two_polls() -> None:
    lab = Lab()
    at = lab.at + 2
    lab.round(well("edge", at, admin={"/admin/certificate": certificate(at, left=2700)}))
    (entry,) = lab.state.snapshot(at + 100)["certificates"]
    assert entry["seconds_left"] == 2600


def test_the_time_left_follows_the_hosts_own_clock() -> None:
    # A drill sets the clock of `edge` an hour ahead.  By the console's clock, the certificate expires in 2,400 s.
    lab = Lab()
    at = lab.at + 2
    said = {**certificate(at, left=2400), "seconds_left": -1200.0}
    snapshot = lab.round(well("edge", at, admin={"/admin/certificate": said}))
    assert snapshot["certificates"][0]["used"] == 1
    assert texts(snapshot) == ["the certificate of edge expired"]
    assert snapshot["verdict"] == {"level": "bad", "text": "All 5 hosts answer, but something is broken."}


def test_an_additional_certificate_is_requested_and_shown() -> None:
    lab = Lab()
    edge = next(it for it in HOSTS.hosts if it.name == "edge")
    default = certificate(lab.at, key="ecdsa-p256", additional=["rsa.example.com", "../../secrets", 7])
    lab.round(well("edge", lab.at + 2, admin={"/admin/certificate": default}))
    own = "/admin/certificate/rsa.example.com"
    assert lab.state.admin_paths(edge) == ("/admin/certificate", "/admin/pool", own)
    of_rsa = certificate(lab.at, names=("rsa.example.com",), left=-5, key="rsa-2048", additional=[])
    snapshot = lab.round(well("edge", lab.at + 2, admin={"/admin/certificate": default, own: of_rsa}))
    assert [(it["host"], it["names"], it["key"]) for it in snapshot["certificates"]] == [
        ("edge", ["www.example.com"], "ecdsa-p256"),
        ("edge", ["rsa.example.com"], "rsa-2048"),
    ]
    assert texts(snapshot) == ["the certificate of rsa.example.com expired"]
    assert snapshot["alarms"][0]["means"] == "clients reject rsa.example.com"


def test_pools_and_certificates_of_a_host_that_is_down_are_marked_stale() -> None:
    lab = Lab()
    admin = {"/admin/pool": {"upstreams": [{"name": "a:1"}]}, "/admin/certificate": certificate(lab.at)}
    lab.round(well("edge", lab.at + 2, admin=admin))
    lab.round("edge")
    snapshot = lab.round("edge")
    assert [pool["stale"] for pool in snapshot["pools"]] == [True]
    assert [entry["stale"] for entry in snapshot["certificates"]] == [True]
    assert texts(snapshot) == ["edge has been down"]


def links_of(lab: Lab, *links: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.round(well("wan", lab.at + 2, admin={"/admin/links": {"links": list(links)}}))[
        "links"
    ]
    return found


def test_directions_with_equal_settings_are_one_entry() -> None:
    (entry,) = links_of(Lab(), link("isp", "near", 16), link("near", "isp", 16, changed=True))
    assert (entry["from"], entry["to"], entry["both"], entry["changed"]) == ("isp", "near", True, True)


def test_directions_with_different_settings_are_two_entries() -> None:
    entries = links_of(Lab(), link("isp", "near", 16), link("near", "isp", 80, changed=True))
    assert [(e["from"], e["rtt_ms"], e["both"], e["changed"]) for e in entries] == [
        ("isp", 16, False, False), ("near", 80, False, True)
    ]  # fmt: skip


def counters(packets: int, lost: int, tun: int = 0) -> dict[str, Any]:
    entry = {"from": "isp", "to": "near", "packets": packets, "dropped_loss": lost, "dropped_queue": 0}
    return {
        "/admin/counters": {"links": [entry], "tun_dropped": tun},
        "/admin/links": {"links": [link("isp", "near", 16)]},
    }


def test_packets_and_drops_are_those_of_the_last_minute() -> None:
    lab = Lab()
    lab.round(well("wan", lab.at + 2, admin=counters(100, 10)))
    (entry,) = lab.round(well("wan", lab.at + 2, admin=counters(120, 13)))["links"]
    assert (entry["packets_per_s"], entry["dropped"]) == (10, 3)


def test_packets_that_the_router_was_too_slow_for_make_measurements_invalid() -> None:
    lab = Lab()
    lab.round(well("wan", lab.at + 2, admin=counters(100, 0)))
    snapshot = lab.round(well("wan", lab.at + 2, admin=counters(120, 0, tun=7)))
    assert texts(snapshot) == ["wan is too slow for this load"]
    assert snapshot["alarms"][0]["means"] == "measurements are invalid"


def test_an_active_fault_is_shown_and_is_a_warning() -> None:
    lab = Lab()
    switch = {"on": True, "help": "Forward late", "parameters": {"ms": 5.0}, "hits": 3}
    lab.round(well("edge", lab.at + 2, faults=["upstream_delay"], admin={"/admin/faults": {"upstream_delay": switch}}))
    snapshot = lab.state.snapshot(lab.at)
    assert snapshot["verdict"]["level"] == "warn"
    assert snapshot["faults"] == [
        {"host": "edge", "name": "upstream_delay", "help": "Forward late", "parameters": {"ms": 5.0}, "hits": 3}
    ]


@pytest.mark.parametrize(
    ("host", "paths"),
    [
        ("edge", ("/admin/certificate", "/admin/pool")),
        ("news", ("/admin/certificate",)),
        ("wan", ("/admin/links", "/admin/counters")),
        ("resolver", ("/admin/cache?limit=0",)),
        ("console", ()),
    ],
)
def test_the_admin_requests_depend_on_the_role(host: str, paths: tuple[str, ...]) -> None:
    lab = Lab()
    declared = next(it for it in HOSTS.hosts if it.name == host)
    assert lab.state.admin_paths(declared) == paths
    lab.state.observe(well(host, lab.at, faults=["x"]))
    assert lab.state.admin_paths(declared) == (*paths, "/admin/faults")


def test_the_last_trace_and_the_runs_are_kept() -> None:
    lab = Lab()
    assert lab.round()["trace_at"] is None
    lab.state.take_trace({"url": "https://x/"}, 5.0)
    lab.state.take_reports([{"name": "ttl"}])
    assert lab.state.trace == {"at": 5.0, "trace": {"url": "https://x/"}}
    assert lab.round()["reports"] == [{"name": "ttl"}]


def test_its_repr_counts_hosts_by_status() -> None:
    lab = Lab()
    lab.round("edge")
    lab.round("edge")
    assert repr(lab.state) == "<State down=1 ok=4>"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([10**400, -(10**400), 1e308, -1e308, 253_402_300_800])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["links", "upstreams", "from", "to", "rtt_ms", "packets", "dropped_loss", "dropped_queue",
                         "name", "seconds_left", "issued", "additional", "key", "not_after", "next_renewal",
                         "tun_dropped", "size", "x", "names", "checks", "ok", "detail", "parameters", "help"]),
        inner, max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["edge", "wan", "resolver"]), JSON), max_size=3), JSON, JSON)
def test_no_answer_of_a_host_breaks_the_snapshot(rounds: list[dict[str, Any]], checks: Any, faults: Any) -> None:
    lab = Lab()
    for answers in rounds:
        lab.at += 2
        for host, body in answers.items():
            declared = next(it for it in HOSTS.hosts if it.name == host)
            admin = dict.fromkeys((*lab.state.admin_paths(declared), "/admin/faults"), body)
            lab.state.observe(
                Sample(host, lab.at, None, {"status": "ok", "checks": checks, "faults": faults}, Scrape(), admin)
            )
    snapshot = lab.state.snapshot(lab.at)
    json.dumps(snapshot, allow_nan=False)
    assert len(statuses(snapshot)) == len(HOSTS.hosts)


@pytest.mark.parametrize("moment", [-6.8e16, -9.3e18, 1e300, 10**400])
def test_an_impossible_certificate_date_is_not_shown(moment: float) -> None:
    lab = Lab()
    body = {"not_before": 0.0, "not_after": moment, "next_renewal": moment, "seconds_left": moment}
    lab.state.observe(well("edge", lab.at, admin={"/admin/certificate": body}))
    (certificate,) = lab.state.snapshot(lab.at)["certificates"]
    assert certificate["not_after"] is certificate["next_renewal"] is certificate["seconds_left"] is None


def test_a_host_that_joins_is_on_the_map_until_it_leaves() -> None:
    lab = Lab()
    lab.state.admit(Host("mine", "198.19.20.100", "mine.example.com", "near", "subject"))
    lab.state.observe(well("mine", lab.at))
    shown = lab.round()
    near = next(region for region in shown["regions"] if region["name"] == "near")
    assert [(host["name"], host["status"]) for host in near["hosts"]][-1] == ("mine", "ok")
    lab.state.dismiss("mine")
    lab.state.observe(silent("mine", lab.at))
    assert "mine" not in json.dumps(lab.round())
