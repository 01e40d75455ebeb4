"""Tests for the predicted cost of each cache state, and for matching server log entries to a query."""

from pathlib import Path

import pytest

from netns_engine import compose
from scenarios.resolution import CHAIN, COLD, DEEPER, SERVERS, STATES, Answered, State
from theory import resolution

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


@pytest.mark.parametrize(
    ("state", "path"),
    [
        pytest.param(COLD, [10, 20, 16], id="root-tld-zone"),
        pytest.param(DEEPER, [10, 20, 16, 16], id="one-delegation-more"),
        pytest.param(State("", "www.example.com", "example.com."), [16], id="delegation-known"),
        pytest.param(State("", "news.example.com", "example.com."), [16, 16], id="one-deeper-from-there"),
        pytest.param(State("", "www.example.com", ""), [], id="answer-known"),
    ],
)
def test_the_path_of_a_state_ends_at_its_zone(state: State, path: list[float]) -> None:
    assert (state.shortest, state.hops) == (path, len(path))


def test_every_cache_saves_time() -> None:
    www = [resolution.cold_ms(4, state.shortest) for state in STATES if state.qname.startswith("www")]
    assert www == sorted(www, reverse=True)


def test_only_log_entries_of_this_query_count() -> None:
    asked = (("root-a", "com"), ("tld-com", "example.com"), ("ns1", "www.example.com"))
    answered = Answered(COLD, 50.0, 50.0, asked, since=100.0, until=100.05)
    logs = [
        (99.9, "root-a", "com"),
        (100.01, "root-a", "com"),
        (100.01, "root-b", "com"),
        (100.02, "tld-com", "ca.example.com"),
        (100.02, "tld-com", "example.com"),
        (100.04, "ns1", "www.example.com"),
        (100.1, "ns2", "www.example.com"),
    ]
    assert answered.logged(logs) == tuple(sorted(asked))
    assert ("tld-com", "www.example.com") in answered.logged([*logs, (100.03, "tld-com", "www.example.com")])


def test_addresses_are_those_of_the_compose_file() -> None:
    services = compose.document(COMPOSE, {})["services"]
    found = {server: services[server]["networks"]["internet"]["ipv4_address"] for server in SERVERS}
    assert found == SERVERS


def test_the_chain_starts_at_the_root() -> None:
    assert list(CHAIN) == [".", "com.", "example.com.", "news.example.com."]
