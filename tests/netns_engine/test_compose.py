"""Tests for the compose file parser of the runtime netns: supported subset and error messages."""

from pathlib import Path

import pytest

from netns_engine import compose
from netns_engine.compose import ComposeError, HealthCheck, Mount, Port
from runtime import find_project

FRAME = """\
networks:
  internet: {ipam: {config: [{subnet: 198.19.0.0/16, ip_range: 198.19.1.128/25}]}}
volumes: {token: }
services:
  host:
"""


def load(tmp_path: Path, *lines: str, frame: str = FRAME) -> compose.Compose:
    path = tmp_path / "docker-compose.yml"
    path.write_text(frame + "".join(f"    {line}\n" for line in lines))
    return compose.load(path)


def test_our_own_file_is_within_the_subset() -> None:
    file = compose.load(find_project() / "docker-compose.yml")
    wan = file.service("wan")
    assert str(wan.address) == "198.19.0.254"
    assert wan.devices == ("/dev/net/tun",)
    assert ("net.ipv4.ip_forward", "1") in wan.sysctls
    assert wan.argv[:2] == ("sh", "/srv/etc/host.sh")
    assert {"net_admin", "setuid", "setgid", "setpcap"} <= set(wan.capabilities)
    assert file.service("ceremony").user == 1000
    assert not file.service("ceremony").networked
    assert Port("127.0.0.1", 5300, 53, "udp") in file.service("resolver").ports
    assert Mount("./lab/etc", "/srv/etc", True) in wan.mounts


def test_profiles_choose_what_starts() -> None:
    file = compose.load(find_project() / "docker-compose.yml")
    plain = {s.name for s in file.chosen(())}
    assert "locust" not in plain
    assert {s.name for s in file.chosen(("load",))} - plain == {"lab", "locust", "locust-worker"}


def test_merged_mappings_and_anchors_are_resolved(tmp_path: Path) -> None:
    frame = "x-base: &base\n  mem_limit: 64m\n  restart: unless-stopped\n" + FRAME
    service = load(tmp_path, "<<: *base", "mem_limit: 128m", frame=frame).service("host")
    assert (service.memory, service.restart) == (128 * 2**20, True)


def test_a_health_check_has_dockers_defaults(tmp_path: Path) -> None:
    service = load(tmp_path, "healthcheck: {test: [CMD, probe], start_period: 1m30s, interval: 500ms}").service("host")
    assert service.health == HealthCheck(("probe",), interval=0.5, start_period=90.0)


REFUSED = [
    pytest.param("privileged: true", "does not know the key 'privileged'", id="unknown-key"),
    pytest.param("network_mode: host", "network_mode: expected 'none'", id="network-mode"),
    pytest.param("restart: always", "restart: expected 'no' or 'unless-stopped'", id="restart"),
    pytest.param("networks: {other: {}}", "networks: expected a mapping with 'internet'", id="network"),
    pytest.param("networks: {internet: {ipv4_address: 198.19.1}}", "expected an IPv4 address", id="address"),
    pytest.param("ports: ['8080:8080']", "expected 127.x.x.x:PORT:PORT", id="port-open-to-the-world"),
    pytest.param("volumes: ['token:/etc/token']", "expected a target below /srv", id="target-outside-srv"),
    pytest.param("volumes: ['nothing:/srv/nothing']", "expected one of the volumes token", id="volume-not-declared"),
    pytest.param("volumes: ['token:/srv/token:rshared']", "expected SOURCE:TARGET", id="mount-mode"),
    pytest.param("mem_limit: lots", "expected a size such as 128m, got 'lots'", id="size"),
    pytest.param("stop_grace_period: 12", "expected a duration such as 30s", id="duration"),
    pytest.param("healthcheck: {test: curl localhost}", "expected [CMD, program", id="shell-check"),
    pytest.param("healthcheck: {test: [CMD, x], url: y}", "does not know the key 'url'", id="unknown-check-key"),
    pytest.param("depends_on: {host: {condition: service_lucky}}", "expected one of service_started", id="condition"),
    pytest.param("depends_on: {nobody: {condition: service_started}}", "no such service", id="unknown-dependency"),
    pytest.param("command: python -m wan", "command: expected a list of words", id="shell-command"),
    pytest.param("user: root", "expected UID or UID:GID", id="user-by-name"),
    pytest.param("cap_drop: [NET_RAW]", "cap_drop: expected ['ALL']", id="partial-drop"),
    pytest.param("environment: [A=B]", "expected a mapping of names to values", id="list-environment"),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_is_not_known_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ComposeError) as caught:
        load(tmp_path, "image: x", text)
    assert problem in str(caught.value)
    # The service begins on the line after FRAME.  Errors name the line of the key, except a missing dependency, which
    # names the line of the service.
    assert caught.value.line == FRAME.count("\n") + (1 if "no such service" in problem else 2)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        pytest.param("", 1, "got an empty file", id="empty"),
        pytest.param("name: x\n", 1, "expected a mapping 'services'", id="no-services"),
        pytest.param("services:\n  a: [\n", 3, "expected YAML", id="not-yaml"),
        pytest.param("name: x\nsecrets: {}\n", 2, "does not know the key 'secrets'", id="unknown-top-key"),
        pytest.param("services: {a: {image: x}}\n", 1, "ipam.config with an IPv4 subnet", id="no-network"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text(text)
    with pytest.raises(ComposeError) as caught:
        compose.load(path)
    assert (caught.value.line, problem in str(caught.value)) == (line, True), str(caught.value)


def test_every_key_is_explained_in_the_readme() -> None:
    readme = (find_project() / "lab" / "netns_engine" / "README.md").read_text()
    assert [key for key, meaning in compose.SERVICE_KEYS.items() if f"| `{key}` | {meaning} |" not in readme] == []


def test_each_image_is_built_by_one_service_and_no_service_lacks_its_builder() -> None:
    """No two services build the same tag.

    Compose labels an image with the name of the service that built it, so two builders would produce two image IDs for
    one tag.
    """
    services = compose.document(find_project() / "docker-compose.yml", {})["services"]
    builders = {name: service["image"] for name, service in services.items() if "build" in service}
    assert builders == {"ceremony": "firstbyte:local", "lab": "firstbyte-lab:local"}
    assert {service["image"] for service in services.values()} == set(builders.values())
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    for chosen in ((), *((profile,) for profile in profiles)):
        started = {n: s for n, s in services.items() if not s.get("profiles") or set(s["profiles"]) & set(chosen)}
        built = {image for name, image in builders.items() if name in started}
        assert {service["image"] for service in started.values()} == built, chosen
