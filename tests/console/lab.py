"""Scripted hosts that consist of an admin port each, and a real console process that polls them.

Every admin port is a real `telemetry.AdminServer` with responses that the tests set.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from console import hosts
from telemetry import AdminError, Faults, Health, Metrics, Request, Response
from telemetry.admin import AdminServer
from telemetry.call import call

ROOT = Path(__file__).parents[2]
HOSTS_FILE = ROOT / "lab/etc/hosts.toml"
LINKS_FILE = ROOT / "lab/etc/links.toml"
#: Round-trip times in milliseconds, as in lab/etc/links.toml.  Pairs with the exchange have 0, all others 40.
RTT = {
    ("access", "isp"): 4, ("access", "near"): 20, ("access", "far"): 120, ("isp", "near"): 16, ("isp", "far"): 116,
    ("isp", "root-a"): 10, ("isp", "root-b"): 40, ("isp", "registry"): 20, ("near", "far"): 100,
}  # fmt: skip


class ScriptedHost:
    """A scripted host: an admin port with health, metrics, and responses by path."""

    def __init__(self, declared: hosts.Host, token_file: Path) -> None:
        self.declared, self.token_file = declared, token_file
        self.health, self.metrics, self.faults = Health(), Metrics(), Faults()
        self.health.set("listener", ok=True, detail="0.0.0.0:53")
        self.sockets = self.metrics.gauge("firstbyte_sockets", "TCP sockets", "state")
        self.sockets.set(0, state="tw")
        self.sockets.set(4, state="inuse")
        #: JSON responses to GET requests, by path.
        self.answers: dict[str, Any] = {}
        self.port = 0
        self._server: AdminServer | None = None

    async def start(self) -> None:
        """Start listening; after a restart, on the same port as before."""
        self._server = server = AdminServer()
        server.token_file = self.token_file
        server.route("GET", "/health", self._health)
        server.route("GET", "/metrics", lambda _: Response(self.metrics.render().encode(), "text/plain"))
        server.route("GET", "/admin/faults", lambda _: self.faults.as_dict())
        for name in ("certificate", "pool", "links", "counters", "cache"):
            server.route("GET", f"/admin/{name}", self._answer)
        _, self.port = await server.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop listening, so that connections are refused."""
        if self._server is not None:
            await self._server.close()
            self._server = None

    def _health(self, _: Request) -> Response:
        body = {"service": self.declared.role, **self.health.as_dict(), "faults": self.faults.active()}
        return Response(json.dumps(body).encode(), "application/json", 200 if self.health.ok else 503)

    def _answer(self, request: Request) -> Any:
        if request.path not in self.answers:
            raise AdminError(404, f"{request.path}: not found")
        return self.answers[request.path]


def certificate(now: float, *, names: tuple[str, ...] = ("www.example.com",), left: float = 2400.0, **more: Any) -> Any:
    """Return an /admin/certificate response for a certificate valid for one hour, with *left* seconds until expiry."""
    issued = now + left - 3600
    return {
        "names": list(names), "issuer": "CN=test CA", "serial": "75c25030", "issued": issued, "not_before": issued - 60,
        "not_after": now + left, "seconds_left": left, "next_renewal": issued + 1800, "renewals": 1, "failures": 0,
        "last_error": "", **more,
    }  # fmt: skip


def link(a: str, b: str, rtt: float, **more: Any) -> dict[str, Any]:
    """Return one direction of a link in the format of /admin/links."""
    settings = {"rtt_ms": float(rtt), "jitter_ms": 0.0, "loss": 0.0, "rate_bps": None, "queue_bytes": 150000}
    return {"from": a, "to": b, **settings, "changed": False, **more}


def links(regions: list[str], **changed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return both directions of all links between *regions*; *changed* maps ``a__b`` to settings of that direction."""
    found = []
    for a in regions:
        for b in regions:
            if a != b:
                rtt = 0 if "exchange" in {a, b} else RTT.get((a, b)) or RTT.get((b, a)) or 40
                found.append(link(a, b, rtt, **changed.get(f"{a}__{b}", {})))
    return found


def phase(name: str, start: float, measured: float, predicted: float, trips: int, **detail: Any) -> dict[str, Any]:
    """Return one phase of a trace in the trace's JSON format."""
    return {
        "name": name, "start_ms": start, "measured_ms": measured, "predicted_ms": predicted,
        "residual_ms": measured - predicted, "round_trips": trips, "bytes_sent": 0, "bytes_received": 0, "cpu_ms": 0.1,
        "detail": detail,
    }  # fmt: skip


def trace(url: str = "https://www.example.com/") -> dict[str, Any]:
    """Return a trace in the format of `firstbyte trace --json`."""
    hop = {"server": "198.19.11.53", "server_name": "b.root-servers.test.", "zone": ".", "qname": "www.example.com.",
           "qtype": "A", "rcode": "NOERROR", "rtt_ms": 41.3, "cached": False, "kind": "referral"}  # fmt: skip
    cold = [
        phase("dns", 0, 85.9, 80, 4, hops=[hop, {**hop, "server_name": "ns1.example.com.", "kind": "answer"}]),
        phase("connect", 85.9, 20.3, 20, 1),
        phase("tls", 106.2, 24.2, 20, 1),
        phase("request", 130.4, 0.5, 0, 0),
        phase("first_byte", 130.9, 61.1, 52, 1),
        phase("body", 192.0, 0.1, 0, 0),
        phase("close", 192.1, 20.4, 20, 1),
    ]
    warm = [
        phase("dns", 0, 0.1, 0, 0, hops=[]),
        phase("connect", 0.1, 20.4, 20, 1),
        phase("first_byte", 20.5, 43, 40, 1),
    ]
    return {
        "url": url,
        "cold": {"total_ms": 192.1, "ttfb_ms": 192.0, "ttfb_predicted_ms": 172.0, "phases": cold},
        "warm": {"total_ms": 63.8, "ttfb_ms": 63.7, "ttfb_predicted_ms": 60.0, "phases": warm},
        "summary": "Of 192 ms to the first byte, 45 % names, 11 % connections, 13 % identity; "
        "the answer itself took 32 %.",
    }


class ScriptedLab:
    """All hosts of lab/etc/hosts.toml, scripted, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.declared = hosts.load(HOSTS_FILE)
        self.token_file = folder / "admin.token"
        self.token_file.write_text("test-token\n", encoding="ascii")
        self.hosts = {host.name: ScriptedHost(host, self.token_file) for host in self.declared.hosts}

    def __getitem__(self, name: str) -> ScriptedHost:
        return self.hosts[name]

    def furnish(self, now: float) -> None:
        """Set realistic responses for every host."""
        regions = list(self.declared.regions)
        for host in self.hosts.values():
            if host.declared.role in {"edge", "origin"}:
                host.answers["/admin/certificate"] = certificate(now, names=(host.declared.fqdn,))
            if host.declared.role == "edge":
                requests = host.metrics.counter("firstbyte_edge_requests_total", "Requests")
                requests.inc(12)
                upstream = {"name": "catalog-1.example.com:8443", "route": "/", "address": "198.19.20.21", "idle": 2,
                            "active": 1, "opened": 3, "reused": 9, "failed": 0, "ejected": True,
                            "waiting": 0}  # fmt: skip
                host.answers["/admin/pool"] = {"upstreams": [upstream]}
        resolver, wan = self["resolver"], self["wan"]
        resolver.answers["/admin/cache"] = {"entries": [], "size": 31}
        self.hits = resolver.metrics.counter("firstbyte_resolver_cache_hits_total", "Hits")
        self.misses = resolver.metrics.counter("firstbyte_resolver_cache_misses_total", "Misses")
        self.hits.inc(9)
        self.misses.inc(26)
        wan.answers["/admin/links"] = {"links": links(regions)}
        wan.answers["/admin/counters"] = {
            "tun_dropped": 0,
            "links": [
                {
                    "from": it["from"],
                    "to": it["to"],
                    "packets": 40,
                    "bytes": 4000,
                    "dropped_loss": 0,
                    "dropped_queue": 0,
                }
                for it in links(regions)
            ],
        }

    def hosts_file(self) -> Path:
        """Write a hosts file with the actual admin ports and return its path."""
        text = HOSTS_FILE.read_text(encoding="utf-8")
        for host in self.hosts.values():
            text = text.replace(
                f'\nname = "{host.declared.name}"\n',
                f'\nname = "{host.declared.name}"\nadmin = "127.0.0.1:{host.port}"\n',
            )
        path = self.folder / "hosts.toml"
        path.write_text(text, encoding="utf-8")
        return path


class RunningConsole:
    """A console in a separate process."""

    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int], token: str) -> None:
        self.process, self.ports, self.token = process, ports, token

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    async def show_trace(self, body: Any) -> Any:
        """Post a trace to the console's admin port, as `firstbyte trace` does, and return the response."""
        admin = f"http://127.0.0.1:{self.ports['admin']}"
        return await asyncio.to_thread(call, admin, "POST", "/admin/traces", body, token=self.token)

    async def stop(self) -> int:
        """Send SIGTERM, wait for the process, and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            return await self.process.wait()


@asynccontextmanager
async def console(lab: ScriptedLab, *options: str, port: int = 0) -> AsyncIterator[RunningConsole]:
    """Run ``python -m console`` with the hosts of *lab* and yield it; stop it at the end."""
    results = lab.folder / "results"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console", "--listen", f"127.0.0.1:{port}", "--hosts", str(lab.hosts_file()),
        "--results", str(results), "--interval", "0.2", "--admin", "127.0.0.1:0", "--token-file", str(lab.token_file),
        *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ,
             "PYTHONPATH": ":".join(str(ROOT / room) for room in ("dns", "pki", "services", "loadtest", "lab"))},
    )  # fmt: skip
    assert process.stdout is not None
    ports: dict[str, int] = {}
    async with asyncio.timeout(20):
        while ports.keys() != {"http", "admin"}:
            line = (await process.stdout.readline()).decode()
            assert line, f"expected the addresses on which the console listens, got exit code {await process.wait()}"
            if match := re.fullmatch(r"listening on \S+:(\d+) \((\w+)\)\n", line):
                ports[match[2]] = int(match[1])
    running = RunningConsole(process, ports, "test-token")
    try:
        yield running
    finally:
        await running.stop()
