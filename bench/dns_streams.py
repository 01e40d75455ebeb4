"""Compares our resolver with Unbound by DNS over TLS answers per CPU-second.

    python bench/dns_streams.py [--seconds 3] [--repeat 5] [--json]

dnsperf runs on one core and queries a thousand cached names, with 20 queries per connection, so the figure includes the
cost of full handshakes. A second measurement uses persistent connections. Rounds alternate between the two servers, and
the median ratio is reported. Requires unbound, dnsperf, openssl, and root (for a root name
server on 127.0.1.10 port 53, which both resolvers use).
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import dns_queries
from dns_queries import LOAD_CPU, ROOT, UNBOUND, BenchError, Server, free_port, nameserver, running

#: Target (minimum ratio of our answers per CPU-second to Unbound's), and number of queries per connection.
RATIO, PER_CONNECTION = 0.5, 20
#: Number of dnsperf clients; each client opens only a few connections per second.
CLIENTS = 50
UNBOUND_TLS = """server:
  interface: 127.0.0.1@{tls}
  tls-port: {tls}
  tls-service-pem: "{pem}"
  tls-service-key: "{pem}"
"""


def ask(server: Server, tls: int, queries: Path, seconds: float, per_connection: int | None) -> dict[str, float]:
    """Run dnsperf once over TLS; return answers per CPU-second and per second, and connections per second."""
    before = server.cpu()
    command = ["taskset", "-c", str(LOAD_CPU), "dnsperf", "-m", "dot", "-s", "127.0.0.1", "-p", str(tls)]
    command += ["-d", str(queries), "-l", f"{seconds:g}", "-c", str(CLIENTS), "-T", "1", "-q", str(4 * CLIENTS)]
    if per_connection is not None:
        command += ["-O", f"num-queries-per-conn={per_connection}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    used = server.cpu() - before
    found = {
        key: re.search(rf"{key}:\s+(\d+)", ran.stdout) for key in ("Queries completed", "Queries lost", "Reconnections")
    }
    values = {key: int(match[1]) for key, match in found.items() if match is not None}
    if not values.get("Queries completed"):
        raise BenchError(f"expected dnsperf to report, got: {ran.stderr.strip()[-200:]}")
    answers = values["Queries completed"]
    return {
        "per_cpu_s": answers / used,
        "per_s": answers / seconds,
        "connections_per_s": values.get("Reconnections", 0) / seconds,
        "lost": values.get("Queries lost", 0),
    }


def bench(seconds: float, repeat: int) -> dict[str, Any]:
    for name in ("unbound", "dnsperf", "taskset", "openssl"):
        if shutil.which(name) is None:
            raise BenchError(f"expected {name} on PATH; install it (apt-get install {name})")
    if os.geteuid():
        raise BenchError("expected root, for a root server on port 53 of a loopback address")
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        pem, hints, queries = certificate(folder), *dns_queries.hot_names(folder)
        plain = (free_port(), free_port())
        tls = (tcp_port(), tcp_port())
        conf = UNBOUND.format(port=plain[1], folder=folder, hints=hints) + UNBOUND_TLS.format(tls=tls[1], pem=pem)
        (folder / "unbound.conf").write_text(conf)
        ours = [sys.executable, "-m", "resolver", "--listen", f"127.0.0.1:{plain[0]}", "--hints", str(hints)]
        ours += ["--tls", f"127.0.0.1:{tls[0]}", "--cert", str(pem)]
        stack.enter_context(running(nameserver(folder / "root", ".", 53, ROOT), 53, ROOT))
        servers = (
            stack.enter_context(running(ours, plain[0])),
            stack.enter_context(running(["unbound", "-d", "-c", str(folder / "unbound.conf")], plain[1])),
        )
        for case, per_connection in (
            (f"{PER_CONNECTION} queries per connection", PER_CONNECTION),
            ("open connections", None),
        ):
            for server, port in zip(servers, tls, strict=True):
                ask(server, port, queries, 0.5, per_connection)
            rounds = [
                tuple(
                    ask(server, port, queries, seconds, per_connection)
                    for server, port in zip(servers, tls, strict=True)
                )
                for _ in range(repeat)
            ]
            rows[case] = dns_queries.summary(rounds)
    kept = rows[f"{PER_CONNECTION} queries per connection"]["ratio"] >= RATIO
    return {"bench": "dns_streams", "rows": rows, "promise": RATIO, "kept": {"ratio": kept}}


def certificate(folder: Path) -> Path:
    """Create a P-256 key and a self-signed certificate, used by both servers; return the path of their PEM file."""
    pem = folder / "pair.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return pem


def tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def table(report: dict[str, Any]) -> str:
    lines = [
        "DNS over TLS on loopback, cache hits, answers per CPU-second of the server (answers per second)",
        f"{'':28}{'ours':>20}{'Unbound':>20}{'ratio':>8}{'promise':>9}",
    ]
    for case, row in report["rows"].items():
        cells = [f"{each['per_cpu_s']:,.0f} ({each['per_s']:,.0f})" for each in (row["ours"], row["peer"])]
        promised = case.startswith(str(PER_CONNECTION))
        verdict = f"{RATIO:9.2f}  {'kept' if report['kept']['ratio'] else 'BROKEN'}" if promised else ""
        lines.append(f"{case:28}{cells[0]:>20}{cells[1]:>20}{row['ratio']:8.2f}{verdict}")
    lines.append(f"load average {report['load_average']:.1f}; {report['machine']}")
    return "\n".join(lines)


def main() -> int:
    return dns_queries.run(bench, table, seconds=3.0, repeat=5)


if __name__ == "__main__":
    sys.exit(main())
