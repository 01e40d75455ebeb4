"""Fixtures for a small lab in network namespaces: router, client and name server, on free ports.

The lab starts in two seconds, so tests can start and kill it often.  The compose file is defined here; services, entry
point and links are the real ones.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_engine.compose import load
from netns_engine.prerequisites import require_machine
from netns_engine.state import StateFolder
from runtime import EngineError, LabError, find_project
from runtime.netns_lab import NetnsLab
from runtime.topology import Topology
from tests.waiting import comes_true

SMALL = """\
name: small
x-host: &host
  entrypoint: [sh, /srv/etc/host.sh]
  restart: unless-stopped
  read_only: true
  cap_drop: [ALL]
  cap_add: [NET_ADMIN, SETUID, SETGID, SETPCAP]
  mem_limit: 128m
  pids_limit: 64
  environment:
    {PATH: "/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", PYTHONUNBUFFERED: "1", PYTHONDONTWRITEBYTECODE: "1"}
  healthcheck: {test: [CMD, python, -m, hostfiles.probe], interval: 30s, start_period: 20s, start_interval: 1s}
  volumes:
    - ./lab/etc:/srv/etc:ro
    - ./lab/etc/resolv.conf:/etc/resolv.conf:ro
    - token:/srv/token:ro
    - ./dns/zones:/srv/zones:ro
services:
  ceremony:
    entrypoint: [sh, -c, "echo secret > /srv/token/admin.token"]
    user: "1000:1000"
    network_mode: none
    environment: {PATH: "/usr/bin:/bin"}
    volumes: [token:/srv/token]
  wan:
    <<: *host
    command:
      [python, -m, wan, --links, /srv/etc/links.toml, --tun, wan0,
       --admin, "0.0.0.0:9900", --token-file, /srv/token/admin.token]
    environment: {PATH: "/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOST_ROLE: wan, PYTHONDONTWRITEBYTECODE: "1"}
    devices: [/dev/net/tun]
    sysctls: {net.ipv4.ip_forward: "1", net.ipv4.conf.all.rp_filter: "0", net.ipv4.conf.default.rp_filter: "0"}
    networks: {internet: {ipv4_address: 198.19.0.254}}
    depends_on: {ceremony: {condition: service_completed_successfully}}
  client:
    <<: *host
    command:
      [python, -m, nameserver, --listen, "0.0.0.0:53", --zone, "test.=/srv/zones/test.zone",
       --admin, "0.0.0.0:9900", --token-file, /srv/token/admin.token]
    networks: {internet: {ipv4_address: 198.19.1.10}}
    depends_on: {wan: {condition: service_healthy}}
  root-a:
    <<: *host
    command:
      [python, -m, nameserver, --listen, "0.0.0.0:53", --zone, ".=/srv/zones/root.zone",
       --admin, "0.0.0.0:9900", --token-file, /srv/token/admin.token]
    networks: {internet: {ipv4_address: 198.19.10.53}, published: {}}
    ports: ["127.0.0.1:PORT:53/udp", "127.0.0.1:PORT:53/tcp"]
    depends_on: {wan: {condition: service_healthy}}
networks:
  internet: {internal: true, ipam: {config: [{subnet: 198.19.0.0/16, ip_range: 198.19.1.128/25}]}}
  published: {}
volumes: {token: }
"""


def free_port() -> int:
    """Return a port number that is currently free for both UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                return port


def make(folder: Path) -> NetnsLab:
    """Return a small lab in *folder* that is not running.

    If this machine cannot run the lab, skip the test; in CI, fail it.
    """
    if os.environ.get("FIRSTBYTE_RUNTIME") == "docker":
        pytest.skip("the tests were asked for on Docker")
    project = folder / "project"
    project.mkdir()
    for room in ("lab", "dns", "loadtest"):
        (project / room).symlink_to(find_project() / room)
    (project / "docker-compose.yml").write_text(SMALL.replace("PORT", str(free_port())))
    try:
        require_machine(load(project / "docker-compose.yml"))
    except EngineError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no network namespaces here: {error}")
    return NetnsLab(Topology.load(project), StateFolder(folder / "state"))


@pytest.fixture
def absent(tmp_path: Path) -> Iterator[NetnsLab]:
    """Yield a small lab that is not running; shut it down after the test."""
    lab = make(tmp_path)
    yield lab
    lab.down()


@pytest.fixture
def small(standing: NetnsLab) -> NetnsLab:
    """Return a small running lab, after waiting up to 30 seconds until all its hosts are healthy."""
    well = comes_true(lambda: all(s.state == "exited" or s.health == "healthy" for s in standing.status()), 30)
    assert well, standing.status()
    return standing


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetnsLab]:
    """Yield a running small lab, shared by all tests of a module."""
    lab = make(tmp_path_factory.mktemp("small"))
    lab.up()
    yield lab
    try:
        lab.down()
    except LabError as error:
        pytest.fail(str(error))
