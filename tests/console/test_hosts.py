"""Tests for the hosts file: error messages, and agreement of the lab's file with docker-compose.yml and the zones."""

import re
import tomllib
from pathlib import Path

import pytest

from console import hosts
from netns_engine import compose
from tests.console.lab import HOSTS_FILE, LINKS_FILE, ROOT

COMPOSE = compose.document(ROOT / "docker-compose.yml", {})
DECLARED = hosts.load(HOSTS_FILE)

GOOD = """\
[regions]
near = "near data centre"

[[host]]
name = "edge"
address = "198.19.20.10"
fqdn = "www.example.com"
region = "near"
role = "edge"
"""


def running_services() -> dict[str, str]:
    """Return the address of each service that `docker compose up` without profiles starts and keeps running."""
    return {
        name: service["networks"]["internet"]["ipv4_address"]
        for name, service in COMPOSE["services"].items()
        if not service.get("profiles") and service.get("restart") != "no"
    }


def test_the_hosts_are_those_of_docker_compose_with_their_addresses() -> None:
    assert {host.name: host.address for host in DECLARED.hosts} == running_services()


def test_regions_are_those_of_the_links_file() -> None:
    declared = tomllib.loads(LINKS_FILE.read_text(encoding="utf-8"))["regions"]
    assert set(DECLARED.regions) == set(declared)


@pytest.mark.parametrize("host", DECLARED.hosts, ids=lambda host: host.name)
def test_a_host_is_in_the_region_of_its_address(host: hosts.Host) -> None:
    octets = {"exchange": 0, "access": 1, "isp": 2, "root-a": 10, "root-b": 11, "registry": 12, "near": 20, "far": 30}
    assert int(host.address.split(".")[2]) == octets[host.region]


@pytest.mark.parametrize("host", DECLARED.hosts, ids=lambda host: host.name)
def test_the_zones_have_each_hosts_address_under_its_name(host: hosts.Host) -> None:
    zones = [path.read_text(encoding="utf-8") for path in (ROOT / "dns/zones").glob("*.zone")]
    address = re.escape(host.address)
    assert any(re.search(rf"\bA\s+{address}\b", zone) for zone in zones), host.fqdn


@pytest.mark.parametrize("host", DECLARED.hosts, ids=lambda host: host.name)
def test_every_host_has_a_consequence(host: hosts.Host) -> None:
    assert host.without


def test_a_good_file_is_read() -> None:
    read = hosts.parse(GOOD)
    assert read.regions == {"near": "near data centre"}
    assert read.hosts == (hosts.Host("edge", "198.19.20.10", "www.example.com", "near", "edge"),)
    assert read.hosts[0].url == "http://198.19.20.10:9900"


def test_another_admin_port_can_be_set() -> None:
    assert hosts.parse(GOOD + 'admin = "127.0.0.1:1"\n').hosts[0].url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        pytest.param("[regions\n", 1, "expected TOML", id="no-toml"),
        pytest.param(GOOD + "[[hosts]]\n", 10, "one of regions, host, loss, got 'hosts'", id="unknown-table"),
        pytest.param("[[host]]\n", 1, "a table [regions]", id="no-regions"),
        pytest.param('[regions]\nnear = "x"\n', 2, "at least one [[host]]", id="no-host"),
        pytest.param(GOOD.replace('role = "edge"\n', ""), 4, "a role, got None", id="no-role"),
        pytest.param(GOOD.replace('"edge"\naddress', '""\naddress'), 5, "name to be text, got ''", id="empty-name"),
        pytest.param(GOOD + "port = 1\n", 10, "got 'port'", id="unknown-key"),
        pytest.param(
            GOOD.replace('region = "near"', 'region = "moon"'),
            8,
            "one of the regions near, got 'moon'",
            id="unknown-region",
        ),
        pytest.param(GOOD + GOOD.partition("\n\n")[2], 11, "a unique name, got 'edge'", id="twice"),
        pytest.param(
            GOOD + '[[loss]]\nof = ["ns"]\nmeans = "x"\n',
            10,
            "some of the hosts edge, got 'ns'",
            id="loss-of-an-unknown-host",
        ),
        pytest.param(GOOD + '[[loss]]\nof = []\nmeans = "x"\n', 10, "expected of =", id="loss-of-none"),
        pytest.param(GOOD.replace("[[host]]", "[host]"), 4, "[[host]] tables", id="host-is-one-table"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, line: int, expected: str) -> None:
    with pytest.raises(hosts.HostsFileError) as caught:
        hosts.parse(text, "h.toml")
    message = str(caught.value)
    assert expected in message
    assert message.startswith(f"h.toml:{line}:")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hosts.HostsFileError, match="expected a readable hosts file, got: No such file"):
        hosts.load(tmp_path / "none.toml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.toml").write_bytes(b'[regions]\nnear = "\xff"\n')
    with pytest.raises(hosts.HostsFileError, match="expected UTF-8"):
        hosts.load(tmp_path / "h.toml")


JOINED = {"name": "mine", "address": "198.19.20.100", "fqdn": "mine.example.com", "region": "near"}


def test_a_joined_host_has_the_role_subject() -> None:
    host = hosts.joined(JOINED, DECLARED)
    assert host is not None
    assert (host.name, host.role, host.url) == ("mine", "subject", "http://198.19.20.100:9900")


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        {**JOINED, "role": "wan"},
        {**JOINED, "region": "moon"},
        {**JOINED, "name": "edge"},
        {**JOINED, "name": 5},
    ],
    ids=["list", "empty", "more", "region", "taken", "number"],
)
def test_other_entries_are_no_joined_host(entry: object) -> None:
    assert hosts.joined(entry, DECLARED) is None
