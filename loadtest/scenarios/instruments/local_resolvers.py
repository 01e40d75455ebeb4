"""Runs resolvers (firstbyte's, Unbound and BIND) as child processes on loopback, with the lab's root servers."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostfiles.layout import lab_address
from stub import AsyncStub, StubError
from theory.ttl import Rounding

#: Addresses of the lab's root servers by name (a test compares them with the compose file).
ROOTS = {"a.root-servers.test.": lab_address("10.53"), "b.root-servers.test.": lab_address("11.53")}
#: Maximum time until a resolver answers its first query, in seconds, and the name in that query.
STARTS, FIRST = 10.0, "ns1.example.com"
#: How long a resolver may serve an expired answer, in seconds, and the time in milliseconds after which Unbound serves
#: an expired answer while it still waits for name servers (both as RFC 8767 section 5 recommends).
STALE_S, STALE_AFTER_MS = 86_400, 1800

_UNBOUND = """server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1@{port}
  root-hints: "{folder}/hints"
  do-not-query-localhost: no
  module-config: "iterator"
  num-threads: 1
  msg-cache-size: 4m
  rrset-cache-size: 4m
  serve-expired: {stale}
  serve-expired-ttl: {stale_s}
  serve-expired-client-timeout: {stale_after_ms}
remote-control:
  control-enable: no
"""
_BIND = """options {{
  directory "{folder}";
  pid-file none;
  session-keyfile none;
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  dnssec-validation no;
  recursion yes;
  empty-zones-enable no;
  prefetch 0;
  max-cache-size 16m;
  stale-cache-enable {stale};
  stale-answer-enable {stale};
  max-stale-ttl {stale_s};
  stale-answer-client-timeout {client_timeout};
}};
controls {{ }};
zone "." {{ type hint; file "{folder}/hints"; }};
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A resolver program, and how its cache rounds the lifetimes of records."""

    name: str
    #: Name of the executable; "" for firstbyte's own resolver, which is always available.
    executable: str
    #: How the lifetime in the cache is derived from a TTL: Unbound and BIND compare whole seconds; new versions of
    #: Unbound round the lifetime down.
    rounding: Rounding

    @property
    def installed(self) -> bool:
        """Whether the program can be started on this machine."""
        return not self.executable or self.path is not None

    @property
    def path(self) -> str | None:
        """Path of the executable; None if the program is not installed."""
        return shutil.which(self.executable, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")

    def command(self, folder: Path, port: int, *, stale: bool) -> list[str]:
        """Write the configuration to *folder* and return the command line of a resolver on 127.0.0.1:*port*."""
        values = {
            "folder": folder,
            "port": port,
            "stale": "yes" if stale else "no",
            "stale_s": STALE_S,
            "stale_after_ms": STALE_AFTER_MS,
            # BIND sends an expired answer immediately and refreshes the record in the background.
            "client_timeout": "0" if stale else "off",
        }
        hints, conf = folder / "hints", folder / "conf"
        hints.write_text("".join(f". 3600000 IN NS {name}\n{name} 3600000 IN A {ip}\n" for name, ip in ROOTS.items()))
        match self.executable:
            case "unbound":
                conf.write_text(_UNBOUND.format(**values))
                return [str(self.path), "-d", "-c", str(conf)]
            case "named":
                conf.write_text(_BIND.format(**values))
                return [str(self.path), "-g", "-n", "1", "-c", str(conf)]
        words = [sys.executable, "-m", "resolver", "--listen", f"127.0.0.1:{port}", "--hints", str(hints)]
        words += ["--log-level", "error"]
        return [*words, "--serve-stale", str(STALE_S)] if stale else words


PROGRAMS = (
    Program("firstbyte", "", "exact"),
    Program("Unbound", "unbound", "up"),
    Program("BIND", "named", "down"),
)


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolver under test."""

    name: str
    address: tuple[str, int]
    rounding: Rounding
    #: Whether the resolver serves expired answers (serve-stale).
    stale: bool
    #: Label that distinguishes the names queried through this resolver in the servers' query logs.
    label: str


@contextlib.asynccontextmanager
async def running(programs: Sequence[Program]) -> AsyncIterator[list[Resolver]]:
    """Run each program with and without serve-stale during an ``async with`` block; stop all resolvers at its end.

    Raises:
        OSError: a program could not be started or did not answer within `STARTS` seconds.
    """
    children: list[asyncio.subprocess.Process] = []
    # Without the lab's environment variables: they would make a resolver open the admin port of this host.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTBYTE_")}
    with tempfile.TemporaryDirectory(prefix="resolvers-") as root:
        try:
            found = []
            for number, (program, stale) in enumerate((each, stale) for each in programs for stale in (False, True)):
                folder = Path(root) / str(number)
                folder.mkdir()
                port = free_port()
                with (folder / "log").open("wb") as log:
                    command = program.command(folder, port, stale=stale)
                    child = await asyncio.create_subprocess_exec(
                        *command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
                    )
                children.append(child)
                name = f"{program.name}, serve-stale" if stale else program.name
                found.append(Resolver(name, ("127.0.0.1", port), program.rounding, stale, f"r{number}"))
            for each, child in zip(found, children, strict=True):
                await _answers(each, child, Path(root) / each.label.removeprefix("r") / "log")
            yield found
        finally:
            for child in children:
                await asyncio.shield(_stop(child))


async def _stop(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # the process has already ended
        child.terminate()
    try:
        async with asyncio.timeout(5):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


async def _answers(resolver: Resolver, child: asyncio.subprocess.Process, log: Path) -> None:
    """Wait for the first answer of *resolver*; if none arrives, raise `OSError` with the end of its log."""
    end = asyncio.get_running_loop().time() + STARTS
    while child.returncode is None and asyncio.get_running_loop().time() < end:
        with contextlib.suppress(StubError):
            await AsyncStub([resolver.address], timeout=1.0, attempts=1).resolve(FIRST)
            return
        await asyncio.sleep(0.1)  # the socket may not exist yet; a refused query returns immediately
    words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise OSError(f"{resolver.name} did not answer within {STARTS:g} s: {words[0]}")


def free_port() -> int:
    """Return a port on 127.0.0.1 that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port
