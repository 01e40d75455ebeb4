"""Finds address, region and lab host of the server under test, and reads the counters of the link leading from it."""

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from experiments import Run
from experiments.lab import Admin
from stub import Stub

#: Region of the load generator (lab/etc/links.toml).
CLIENTS = "access"


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that a scenario measures."""

    #: DNS name of the server.
    name: str
    address: str
    #: Region of the server's address; the scenario may change the link between this region and `CLIENTS`.
    region: str
    #: Name of the lab host with this address; "" if the server is not part of the lab.
    host: str


async def find(run: Run, name: str) -> Subject:
    """Resolve *name* with the lab's resolver and return the server with the resulting address.

    Raises:
        Skipped: the address is in no region of the lab, or in the clients' region, to which no link leads.
    """
    address = (await run.blocking(Stub().resolve, name)).rdata[0]
    regions = (await run.lab.call("wan", "GET", "/admin/links")).get("regions", {})
    region = next((each for each, net in regions.items() if IPv4Address(address) in IPv4Network(net)), "")
    if region in {"", CLIENTS}:
        run.skip(f"{name} ({address}) is in no other region of the lab, so `wan` cannot change the path to it")
    hosts: dict[str, str] = getattr(run.lab.admin, "addresses", {})
    return Subject(name, address, region, next((host for host, at in hosts.items() if at == address), ""))


def settled(admin: Admin, source: str, target: str) -> dict[str, Any]:
    """Wait until no packet is in flight from region *source* to *target*; return the counters of that link."""
    before = -1
    while True:
        links = admin.call("wan", "GET", "/admin/counters")["links"]
        link: dict[str, Any] = next(each for each in links if (each["from"], each["to"]) == (source, target))
        if link["packets"] == before and not link["queued"]:
            return link
        before = link["packets"]
        time.sleep(0.01)  # packets that are still inside a host need time to reach the link
