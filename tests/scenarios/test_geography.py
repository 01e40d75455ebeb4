"""Tests for the predictions of `geography`, computed from the links that links.toml declares."""

import tomllib
from pathlib import Path

import pytest

from scenarios.geography import BACKHAUL_MS, BY_NAME, DIRECT, FAR_MS, NEAR_MS, PLACEMENTS, POOLED
from theory import geography

LINKS = tomllib.loads((Path(__file__).parents[2] / "lab/etc/links.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("pair", "rtt_ms"), [(("access", "near"), NEAR_MS), (("access", "far"), FAR_MS), (("near", "far"), BACKHAUL_MS)]
)
def test_distances_are_those_of_the_links_file(pair: tuple[str, str], rtt_ms: float) -> None:
    (link,) = [each for each in LINKS["link"] if tuple(each["between"]) == pair]
    assert link["rtt_ms"] == rtt_ms


def test_round_trips_are_the_slopes_of_theory() -> None:
    for place in PLACEMENTS:
        if place.link == ("near", "far"):
            near, far = (
                geography.through_edge_ms(20, rtt, backhaul_warm=place.name.endswith("pooled")) for rtt in (0, 1)
            )
        else:
            near, far = (geography.direct_ms(rtt, warm=place.warm) for rtt in (0, 1))
        assert far - near == place.round_trips, place.name


def test_an_edge_on_the_path_saves_the_difference_between_both_paths() -> None:
    assert NEAR_MS + BACKHAUL_MS == FAR_MS
    direct, through = geography.direct_ms(FAR_MS), geography.through_edge_ms(NEAR_MS, BACKHAUL_MS)
    assert direct - through == geography.edge_saves_ms(BACKHAUL_MS) == 200


def test_the_compared_pair_is_direct_and_pooled() -> None:
    assert (DIRECT.host, POOLED.port) == ("far.example.com", 443)
    assert POOLED is BY_NAME["edge near, origin far, pooled"]
