"""Compares our edge with nginx as TLS-terminating reverse proxies, by requests per CPU-second.

    python bench/edge_proxy.py [--seconds 2] [--rounds 5] [--json]

Both proxies use the same certificate and forward requests over plain keep-alive connections to the same origin (nginx,
one worker). The figure uses the CPU time of the proxy process, so neither proxy needs a core of its own. Rounds
alternate, and the median ratio is reported. Requires nginx, wrk and h2load.
"""

import argparse
import json
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_rig import NAME, cpu_seconds, missing, rig

#: Targets: minimum ratio of the edge's requests per CPU-second to nginx's.
BARS = {
    "keep-alive, 1 field": 0.6,
    "keep-alive, 12 fields": 0.6,
    "full handshake": 0.8,
    "resumed handshake": 0.5,
    "10 MB body": 1.0,
}
#: Request header fields that a browser sends in addition to Host.
FIELDS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: sid=0123456789abcdef; theme=dark",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Dest: document",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Priority: u=0, i",
)
#: Number of connections that a load generator keeps open, and number of HTTP/2 streams per connection.
CONNECTIONS, STREAMS = 16, 8


def by_wrk(path: str, fields: tuple[str, ...]) -> Callable[[int, float], int]:
    """Return a function that sends keep-alive requests to a port for some seconds and returns their number."""

    def load(port: int, seconds: float) -> int:
        headers = [word for field in (f"Host: {NAME}", *fields) for word in ("-H", field)]
        command = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{round(seconds)}s",
            *headers,
            f"https://127.0.0.1:{port}{path}",
        ]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in output or "Socket errors" in output:
            raise RuntimeError(output)
        return int(next(line.split()[0] for line in output.splitlines() if "requests in" in line))

    return load


def by_h2load(port: int, seconds: float) -> int:
    """Send requests over HTTP/2 for a number of seconds and return the number of successful responses."""
    command = ["h2load", f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-D{round(seconds)}", "-t1", f"https://127.0.0.1:{port}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    codes = next(line for line in output.splitlines() if line.startswith("status codes:")).split()
    if (codes[4], codes[6], codes[8]) != ("0", "0", "0") or "Application protocol: h2" not in output:
        raise RuntimeError(output)
    return int(codes[2])


def handshakes(folder: Path, *, resumed: bool) -> Callable[[int, float], int]:
    """Return a function that sends requests on new TLS connections for some seconds and returns their number."""
    request = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()

    def load(port: int, seconds: float) -> int:
        context = ssl.create_default_context(cafile=str(folder / "root.pem"))
        if resumed:
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # resumption in TLS 1.3 still includes a key exchange
        session, count, end = None, 0, time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                tls = context.wrap_socket(plain, server_hostname=NAME, session=session if resumed else None)
                tls.sendall(request)
                while tls.recv(65536):
                    pass
                if resumed and session is not None and not tls.session_reused:
                    raise RuntimeError("the session was not resumed")
                session = session or tls.session
                tls.close()
            count += 1
        return count

    return load


def main(argv: list[str] | None = None) -> int:
    """Run all comparisons; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="edge_proxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default 5)")
    parser.add_argument("--only", metavar="WORD", default="", help="comparisons whose name has WORD")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if lacking := missing("nginx", "wrk", "h2load"):
        print(lacking)
        return 0
    with rig() as both:
        loads = {
            "keep-alive, 1 field": by_wrk("/", ()),
            "keep-alive, 12 fields": by_wrk("/", FIELDS),
            "HTTP/2, 8 streams": by_h2load,
            "full handshake": handshakes(both.folder, resumed=False),
            "resumed handshake": handshakes(both.folder, resumed=True),
            "10 MB body": by_wrk("/large", ()),
        }
        rows = {
            title: compare(load, both.ours, both.theirs, args.seconds, args.rounds)
            for title, load in loads.items()
            if args.only in title
        }
    if args.json:
        print(json.dumps({"requests_per_cpu_second": rows}))
    else:
        print("requests per CPU-second        edge    nginx   ratio   bar")
        for title, row in rows.items():
            bar = f"{BARS[title]:.1f}" if title in BARS else "none"
            print(f"{title:<24} {row['edge']:>10.0f} {row['nginx']:>8.0f} {row['ratio']:>7.2f} {bar:>5}")
    return int(any(row["ratio"] < BARS.get(title, 0.0) for title, row in rows.items()))


def compare(
    load: Callable[[int, float], int], ours: tuple[int, int], theirs: tuple[int, int], seconds: float, rounds: int
) -> dict[str, float]:
    """Measure both proxies in alternating rounds; return median requests per CPU-second and the median ratio."""
    rates: dict[str, list[float]] = {"edge": [], "nginx": []}
    for _ in range(rounds):
        for who, (pid, port) in (("edge", ours), ("nginx", theirs)):
            before = cpu_seconds(pid)
            requests = load(port, seconds)
            rates[who].append(requests / max(0.01, cpu_seconds(pid) - before))
    ratios = [a / b for a, b in zip(rates["edge"], rates["nginx"], strict=True)]
    return {who: statistics.median(values) for who, values in rates.items()} | {"ratio": statistics.median(ratios)}


if __name__ == "__main__":
    sys.exit(main())
