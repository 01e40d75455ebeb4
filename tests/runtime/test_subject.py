"""Tests for the addresses and the environment of subjects."""

import ipaddress
from pathlib import Path

import pytest

from runtime import Subject, UsageError
from runtime.subject import OCTETS, free_address, region_of, regions

PROJECT = Path(__file__).parents[2]
NEAR = ipaddress.IPv4Network("198.19.20.0/24")


@pytest.fixture(autouse=True)
def _default_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_ENV_FILES", raising=False)
    monkeypatch.setenv("FIRSTBYTE_PREFIX", "198.19")


def test_regions_are_those_of_the_links() -> None:
    assert regions(PROJECT)["near"] == NEAR
    assert region_of("198.19.30.100", PROJECT) == "far"
    assert region_of("192.0.2.1", PROJECT) == ""


def test_regions_follow_the_prefix_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTBYTE_PREFIX", "10.77")
    assert str(regions(PROJECT)["near"]) == "10.77.20.0/24"


def test_the_first_free_address_is_chosen() -> None:
    assert free_address(NEAR, ["198.19.20.100", "198.19.20.102"]) == "198.19.20.101"


def test_a_full_region_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"all 28 addresses .* are taken"):
        free_address(NEAR, [f"198.19.20.{octet}" for octet in OCTETS])


def test_the_name_and_port_survive_a_round_trip() -> None:
    subject = Subject("mine", "mine.example.com", 8443, "198.19.20.100")
    assert Subject.parse("mine", str(subject), "198.19.20.100") == subject
    assert subject.environment()["SUBJECT_PORT"] == "8443"
