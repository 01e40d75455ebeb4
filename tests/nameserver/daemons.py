"""BIND, NSD and Knot on loopback ports, as peers for transfers."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from tests import judges

SECRET = "dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
#: Content of a key file that our server, `nsupdate -k` and BIND can read.
KEY = f'key "transfer." {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running name server."""

    name: str
    folder: Path
    port: int

    def write(self, zone: str, text: str) -> None:
        """Replace the master file of *zone*."""
        (self.folder / f"{zone}zone").write_text(f"$ORIGIN {zone}\n{text}")


def free_port() -> int:
    """Return a port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def bind_config(folder: Path, port: int, zone: str) -> str:
    """Return the content of named.conf; *zone* is the zone clause."""
    return (
        f'options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n'
        f'pid-file "{folder}/named.pid"; session-keyfile none; recursion no; notify-delay 0; }};\n'
        f"controls {{}};\n{KEY}{zone}"
    )


def nsd_config(folder: Path, port: int, zone: str) -> str:
    """Return the content of nsd.conf; *zone* is the zone clause."""
    return (
        f'server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: ""\n  pidfile: "{folder}/nsd.pid"\n'
        f'  zonesdir: "{folder}"\n  xfrdfile: "{folder}/xfrd"\n  zonelistfile: "{folder}/zones"\n  xfrdir: "{folder}"\n'
        '  database: ""\n  chroot: ""\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n'
        f"key:\n  name: transfer.\n  algorithm: hmac-sha256\n  secret: {SECRET}\n{zone}"
    )


def knot_config(folder: Path, port: int, zone: str) -> str:
    """Return the content of knot.conf; *zone* is the part from the section ``remote`` to the end."""
    return (
        f"server:\n  rundir: {folder}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n"
        f"database:\n  storage: {folder}\nlog:\n  - target: stderr\n    any: info\n"
        f"key:\n  - id: transfer.\n    algorithm: hmac-sha256\n    secret: {SECRET}\n{zone}"
    )


#: For each server: the function that writes its configuration, and its command line.
CONFIGS = {"named": bind_config, "nsd": nsd_config, "knotd": knot_config}
COMMANDS = {
    "named": ("named", "-g", "-n", "1", "-c"),
    "nsd": ("nsd", "-d", "-c"),
    "knotd": ("knotd", "-c"),
}


@contextmanager
def daemon(
    name: str, folder: Path, zone_clause: str, zone: str = "example.", text: str = "", port: int = 0
) -> Iterator[Daemon]:
    """Run the server *name* with *zone*, from the master file *text*, until the end of the context.

    Args:
        name: ``named``, ``nsd`` or ``knotd``.
        folder: folder for the files of the server; the file ``log`` is its log.
        zone_clause: the part of the configuration that describes the zone.
        zone: the zone's name; its master file is ``{zone}zone`` in *folder*.
        text: the zone's records; empty for a secondary.
        port: port to listen on; 0 selects a free port.
    """
    judges.require(name)
    folder.mkdir(exist_ok=True)
    made = Daemon(name, folder, port or free_port())
    if text:
        made.write(zone, text)
    config = folder / "config"
    config.write_text(CONFIGS[name](folder, made.port, zone_clause))
    command: Sequence[str | Path] = (*COMMANDS[name], config)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        try:
            _wait(made, zone, process)
            yield made
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(daemon: Daemon, zone: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers queries."""
    query = dns.message.make_query(zone, "SOA")
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            dns.query.udp(query, "127.0.0.1", 0.2, daemon.port)
        except (OSError, dns.exception.Timeout):
            time.sleep(0.02)  # poll interval: the peer does not signal that it is ready
        else:
            return
    pytest.fail(f"{daemon.name} does not answer: {(daemon.folder / 'log').read_text()[-2000:]}")
