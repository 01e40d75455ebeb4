"""Tests that configuration files, zones and the topology picture use the addresses of docker-compose.yml."""

import ipaddress
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from dnsmessage import rdtypes
from hostfiles.layout import DEFAULT_PREFIX, lab_address
from nameserver import load
from netns_engine import compose
from runtime import UsageError
from runtime.address_plan import FOLDERS, write_files

ROOT = Path(__file__).parents[2]
COMPOSE = compose.document(ROOT / "docker-compose.yml", {})
#: IPv4 address on the network `internet`, by Compose service.
ADDRESSES: dict[str, str] = {
    name: service["networks"]["internet"]["ipv4_address"]
    for name, service in COMPOSE["services"].items()
    if "ipv4_address" in (service.get("networks") or {}).get("internet", {})
}
#: DNS names of hosts whose name is not HOST.example.com.
NAMES = {
    "edge": "www.example.com.",
    "edge-far": "far.example.com.",
    "news": "news.example.com.",
    "ns-news": "ns.news.example.com.",
    "root-a": "a.root-servers.test.",
    "root-b": "b.root-servers.test.",
    "tld-com": "a.gtld-servers.test.",
    "tld-test": "ns.nic.test.",
    "wan": "wan.lab.test.",
    "console": "console.lab.test.",
}
#: Hosts without a DNS name, because they are only clients.
NAMELESS = {"locust"}
ZONES = {
    ".": "root.zone",
    "com.": "com.zone",
    "test.": "test.zone",
    "example.com.": "example.com.zone",
    "news.example.com.": "news.example.com.zone",
}


def name_of(host: str) -> str:
    return NAMES.get(host, f"{host}.example.com.")


def addresses_in_zones() -> list[tuple[str, str, str]]:
    """Return the A records in the zone files, including glue, as tuples of zone, owner name and IPv4 address."""
    found = []
    for origin, file in ZONES.items():
        for rrset in load(origin, ROOT / "dns" / "zones" / file):
            if rrset.rdtype == rdtypes.A:
                found += [(origin, str(rrset.name), text) for text in rrset.text()]
    return found


def test_every_zone_file_is_served() -> None:
    served = {
        word for service in COMPOSE["services"].values() for word in service.get("command", ()) if ".zone" in str(word)
    }
    assert served == {f"{origin}=/srv/zones/{file}" for origin, file in ZONES.items()}
    assert {path.name for path in (ROOT / "dns" / "zones").glob("*.zone")} == set(ZONES.values())


@pytest.mark.parametrize("host", sorted(set(ADDRESSES) - NAMELESS))
def test_a_hosts_name_has_its_address_in_every_zone(host: str) -> None:
    found = {address for _, owner, address in addresses_in_zones() if owner == name_of(host)}
    assert found == {ADDRESSES[host]}


def test_every_address_in_a_zone_belongs_to_a_host() -> None:
    also = {service["environment"].get("HOST_ALSO") for service in COMPOSE["services"].values()}
    known = {*ADDRESSES.values(), *also}
    unknown = {(zone, owner, ip) for zone, owner, ip in addresses_in_zones() if ip not in known}
    assert unknown == set()


def test_root_hints_are_the_root_servers() -> None:
    hints = (ROOT / "dns" / "zones" / "root.hints").read_text()
    found = dict(re.findall(r"^(\S+)\s+\d+\s+IN\s+A\s+(\S+)", hints, re.MULTILINE))
    assert found == {name_of(host): ADDRESSES[host] for host in ("root-a", "root-b")}


def test_hosts_ask_the_labs_resolver() -> None:
    assert f"nameserver {ADDRESSES['resolver']}\n" in (ROOT / "lab" / "etc" / "resolv.conf").read_text()


def test_every_host_is_in_a_region() -> None:
    regions = tomllib.loads((ROOT / "lab" / "etc" / "links.toml").read_text())["regions"]
    networks = [ipaddress.ip_network(cidr) for cidr in regions.values()]
    outside = [h for h, ip in ADDRESSES.items() if not any(ipaddress.ip_address(ip) in net for net in networks)]
    assert outside == []


def test_the_hosts_file_lists_the_hosts_that_plain_up_starts() -> None:
    declared = tomllib.loads((ROOT / "lab" / "etc" / "hosts.toml").read_text())["host"]
    plain = {n: ip for n, ip in ADDRESSES.items() if not COMPOSE["services"][n].get("profiles")}
    assert {host["name"]: host["address"] for host in declared} == plain
    assert {host["name"]: host["fqdn"] + "." for host in declared} == {name: name_of(name) for name in plain}


def test_every_host_routes_through_the_address_of_wan() -> None:
    text = (ROOT / "lab" / "etc" / "host.sh").read_text()
    assert f"\nprefix={DEFAULT_PREFIX}\n" in text
    assert "\nrouter=$prefix.0.254\n" in text
    assert ADDRESSES["wan"] == f"{DEFAULT_PREFIX}.0.254"


def test_the_client_uses_both_of_its_addresses_as_sources() -> None:
    client = COMPOSE["services"]["client"]
    also = client["environment"]["HOST_ALSO"]
    assert [client["command"][i + 1] for i, word in enumerate(client["command"]) if word == "--source"] == [
        ADDRESSES["client"],
        also,
    ]
    assert also.rpartition(".")[0] == ADDRESSES["client"].rpartition(".")[0]
    assert also not in ADDRESSES.values()


def test_clients_use_cubic_towards_the_second_address_of_news() -> None:
    also = COMPOSE["services"]["news"]["environment"]["HOST_ALSO"]
    assert {COMPOSE["services"][host]["environment"]["HOST_CUBIC"] for host in ("client", "lab")} == {also}
    assert f"cubic                    IN  A    {also}\n" in (ROOT / "dns/zones/news.example.com.zone").read_text()
    assert also.rpartition(".")[0] == ADDRESSES["news"].rpartition(".")[0]
    assert also not in ADDRESSES.values()


def test_the_picture_shows_every_host() -> None:
    picture = (ROOT / "docs" / "topology.svg").read_text()
    missing = [host for host, ip in ADDRESSES.items() if f">{host}<" not in picture or f">{ip}<" not in picture]
    assert missing == []


def test_the_network_gives_dynamic_addresses_to_the_access_region_only() -> None:
    (config,) = COMPOSE["networks"]["internet"]["ipam"]["config"]
    assert (config["subnet"], config["ip_range"]) == ("198.19.0.0/16", "198.19.1.128/25")
    assert COMPOSE["networks"]["internet"]["internal"] is True


def test_the_primary_notifies_the_secondary_whatever_the_zone_says() -> None:
    command = COMPOSE["services"]["ns1"]["command"]
    assert command[command.index("--also-notify") + 1] == ADDRESSES["ns2"]


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert [port for port in published if not str(port).startswith("127.0.0.1:")] == []
    assert {str(p).split(":")[1] for p in published} == {"8080", "8089", "8443", "5300"}


@pytest.mark.parametrize("prefix", ["10.77", "10.90"])  # as a number, 10.90 would become 10.9
def test_another_prefix_changes_every_address_of_the_compose_file(prefix: str) -> None:
    filled = compose.document(ROOT / "docker-compose.yml", {"FIRSTBYTE_PREFIX": prefix})
    assert filled["services"]["wan"]["environment"]["FIRSTBYTE_PREFIX"] == prefix
    text = yaml.safe_dump(filled)
    assert DEFAULT_PREFIX not in text
    assert text.count(f"{prefix}.") == yaml.safe_dump(COMPOSE).count(f"{DEFAULT_PREFIX}.") >= 30


def test_the_prefix_occurs_in_configuration_files_as_an_address_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing the prefix as text, which creates the copies for another prefix, changes only addresses."""
    monkeypatch.setenv("FIRSTBYTE_PREFIX", "10.77")
    monkeypatch.setenv("FIRSTBYTE_FILES", str(tmp_path))
    write_files(ROOT)
    changed = 0
    for folder in FOLDERS:
        for path in (ROOT / folder).iterdir():
            text, copy = path.read_text(), (tmp_path / folder / path.name).read_text()
            found = re.findall(r"198\.19(?!\d)", text)
            wrong = [
                line
                for line in text.splitlines()
                if "198.19" in line and not re.search(r"198\.19(\.\d+\.\d+\b|$)", line)
            ]
            assert wrong == [], path
            assert (copy.count("10.77"), "198.19" in copy) == (text.count("10.77") + len(found), False), path
            changed += bool(found)
    # Number of changed files: five zones, root.hints, host.sh, hosts.toml, links.toml, resolv.conf
    assert changed == 10
    assert lab_address("20.10") == "10.77.20.10"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        pytest.param(
            {"FIRSTBYTE_PREFIX": "10.77.1"}, "expected two octets such as 10.77, got '10.77.1'", id="three-octets"
        ),
        pytest.param({"FIRSTBYTE_PREFIX": "10.777"}, "expected two octets", id="no-octet"),
        pytest.param({"FIRSTBYTE_PREFIX": "10.77"}, "FIRSTBYTE_PREFIX=10.77 needs FIRSTBYTE_FILES", id="no-folder"),
        pytest.param(
            {"FIRSTBYTE_PREFIX": "10.77", "FIRSTBYTE_FILES": "."}, "another folder than the checkout", id="the-checkout"
        ),
    ],
)  # fmt: skip
def test_a_prefix_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=problem):
        write_files(ROOT)
