"""Tests for zone transfers and updates in the lab, with dig, nsupdate, knsupdate and the lab's TSIG key."""

import json
from collections.abc import Iterator

import pytest

from tests import judges
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

NS1, NS2, KEY = "198.19.20.53", "198.19.30.53", "/srv/tsig/lab.key"
#: Maximum number of polls by `until`, at ten per second. On an idle machine, both servers have a change after 0.3 s.
TRIES = 200


#: The same key in the format of knsupdate, which cannot read BIND's key files.
KNOT_KEY = f"""hmac-sha256:lab:$(cut -d '"' -f 4 {KEY})"""


@pytest.fixture(autouse=True, scope="module")
def clean(shell: Shell) -> Iterator[None]:
    """Reload the zone from its file after the test; each test uses a different name."""
    yield
    assert shell.firstbyte("dns", "zone", "reload", "example.com").code == 0


def until(name: str, address: str, *servers: str) -> str:
    """Return a shell command that waits until all *servers* (default: both) return *address* for *name*."""
    asked = [
        f'"$(dig +short +tries=1 +time=1 @{each} {name}.example.com)" = {address}' for each in servers or (NS1, NS2)
    ]
    return f"for i in $(seq {TRIES}); do [ {' -a '.join(asked)} ] && exit 0; sleep 0.1; done; exit 1"


def update(name: str, program: str = f"nsupdate -k {KEY}") -> str:
    """Return a shell command that adds an address at *name* through ns1."""
    lines = (f"server {NS1} 53", "zone example.com.", f"update add {name}.example.com. 5 A 192.0.2.7", "send", "")
    return "printf '" + "\\n".join(lines) + f"' | {program}"


def serials(shell: Shell) -> dict[str, int]:
    """Return the serial number of example.com at each of its servers."""
    servers = json.loads(shell.firstbyte("dns", "show", "--json").out)["servers"]
    return {host: each["serial"] for host, zones in servers.items() for each in zones if each["zone"] == "example.com."}


@pytest.mark.parametrize("program", [f"nsupdate -k {KEY}", f'knsupdate -y "{KNOT_KEY}"'], ids=["nsupdate", "knsupdate"])
def test_an_update_with_the_key_arrives_at_both_servers(shell: Shell, program: str) -> None:
    judges.require_named_in([program])
    name = program.partition(" ")[0]
    answer = shell.on("lab", "sh", "-c", f"{update(name, program)} && {{ {until(name, '192.0.2.7')}; }}")
    assert answer.code == 0, answer.out + answer.err


def test_an_update_without_the_key_is_refused(shell: Shell) -> None:
    answer = shell.on("lab", "sh", "-c", f"{update('nokey', 'nsupdate')}; dig +short @{NS1} nokey.example.com")
    assert answer.out + answer.err == "update failed: REFUSED\n"


def test_dig_transfers_the_zone_with_the_key_only(shell: Shell) -> None:
    whole = shell.on("lab", "dig", "-k", KEY, f"@{NS1}", "example.com", "AXFR").out
    assert "198.19.1.10" in whole
    assert whole.count("IN\tSOA") == 2
    assert "Transfer failed" in shell.on("lab", "dig", f"@{NS1}", "example.com", "AXFR").out


def test_a_primary_that_is_killed_after_an_update_has_it_when_it_is_back(shell: Shell) -> None:
    before = serials(shell)["ns1"]
    answer = shell.on("lab", "sh", "-c", update("kept"))
    assert answer.code == 0, answer.err
    shell.lab.kill("ns1")
    shell.lab.start("ns1")
    assert shell.on("lab", "sh", "-c", until("kept", "192.0.2.7")).code == 0, shell.firstbyte("dns", "show").out
    after = serials(shell)
    assert after["ns1"] == after["ns2"] == before + 1


def test_a_secondary_that_is_killed_during_a_transfer_serves_its_copy_and_catches_up(shell: Shell) -> None:
    record = {"name": "late", "type": "A", "ttl": 5, "rdata": ["192.0.2.8"]}
    before = shell.lab.call("ns1", "PUT", "/admin/zones/example.com./records", record)["serial"] - 1
    for host in ("ns2", "ns1"):  # kill both servers at once, because the transfer of the change takes only 0.3 s
        shell.lab.kill(host)
    shell.lab.start("ns2")
    assert shell.on("lab", "sh", "-c", until("client", "198.19.1.10", NS2)).code == 0
    assert serials(shell)["ns2"] in {before, before + 1}
    shell.lab.start("ns1")
    assert shell.on("lab", "sh", "-c", until("late", "192.0.2.8")).code == 0, shell.firstbyte("dns", "show").out
