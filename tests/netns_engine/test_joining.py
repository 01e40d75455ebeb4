"""Tests for the service of a host that joins a running lab."""

from pathlib import Path

from netns_engine import compose, joining
from netns_engine.messages import Join

COMPOSE = compose.load(Path(__file__).parents[2] / "docker-compose.yml")
TEMPLATE = COMPOSE.service(joining.TEMPLATE)
JOIN = Join("mine", "198.19.20.100", ("--", "nginx"), ((joining.VARIABLE, "mine.example.com:443"),), "/home/me")


def test_a_joined_host_has_its_own_name_address_volume_and_command() -> None:
    made = joining.service(TEMPLATE, JOIN)
    assert (made.name, str(made.address)) == ("mine", "198.19.20.100")
    assert made.argv == (*TEMPLATE.argv[: TEMPLATE.entrypoint], "--", "nginx")
    assert [(m.source, m.read_only) for m in made.mounts if m.target == "/srv/subject"] == [("subject-mine", False)]
    assert [(m.source, m.read_only) for m in made.mounts if m.target == joining.HERE] == [("/home/me", True)]


def test_a_joined_host_is_confined_like_other_hosts() -> None:
    made, edge = joining.service(TEMPLATE, JOIN), COMPOSE.service("edge")
    assert (made.read_only, made.capabilities, made.entrypoint > 2) == (True, edge.capabilities, True)
    assert "/srv/ca" not in {mount.target for mount in made.mounts}


def test_only_joined_hosts_are_subjects() -> None:
    assert joining.subject(joining.service(TEMPLATE, JOIN)) == "mine.example.com:443"
    assert joining.subject(COMPOSE.service("edge")) == ""
