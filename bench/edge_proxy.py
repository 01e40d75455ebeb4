"""Requests per CPU-second of our edge as a TLS-terminating reverse proxy, compared with nginx in the same run.

    python bench/edge_proxy.py [--seconds 2] [--rounds 5] [--json]

Both proxies use the same certificate and forward requests over plain keep-alive connections to the same origin (nginx,
one worker). The figure uses the CPU time of the proxy process, so neither proxy needs a core of its own. Rounds
alternate, and the median ratio is reported. Requires nginx, wrk and openssl.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key

NAME = "www.example.com"
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
#: Number of connections that wrk keeps open, and size of the large response body in bytes.
CONNECTIONS, LARGE = 16, 10_000_000

ORIGIN = """
daemon off; worker_processes 1; pid {folder}/{port}.pid; error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b{port}; \
proxy_temp_path {folder}/p{port};
  fastcgi_temp_path {folder}/f{port}; uwsgi_temp_path {folder}/u{port}; scgi_temp_path {folder}/s{port};
  server {{
    listen 127.0.0.1:{port} backlog=1024; root {folder}/www;
    location = / {{ default_type text/plain; return 200 "hello"; }}
  }}
}}
"""
PROXY = """
daemon off; worker_processes 1; pid {folder}/{port}.pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b{port}; \
proxy_temp_path {folder}/p{port};
  fastcgi_temp_path {folder}/f{port}; uwsgi_temp_path {folder}/u{port}; scgi_temp_path {folder}/s{port};
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=1024; ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:S:10m;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""


def free_port() -> int:
    """Return a free TCP port on loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def certificate(folder: Path) -> None:
    """Create a certificate chain; write chain.pem, key.pem and root.pem to *folder*."""
    now, root_key, issuing_key, key = time.time(), new_key(), new_key(), new_key()
    root = issue_root(root_key, "bench root", now)
    issuing = issue_intermediate(Issuer(root, root_key, ()), issuing_key.public_key(), "bench CA", now)
    leaf = issue_leaf(Issuer(issuing, issuing_key, (issuing,)), key.public_key(), [NAME], now, 7200.0, 60.0)
    (folder / "chain.pem").write_bytes(leaf.public_bytes(Encoding.PEM) + issuing.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run a server; yield its process ID as soon as *port* accepts connections."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)  # poll until the server listens
        else:
            raise RuntimeError(f"{command[0]} does not listen on port {port}")
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds used by a process and its children (nginx's worker is a child)."""
    total = 0
    for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def by_wrk(path: str, fields: tuple[str, ...]) -> Callable[[int, float], int]:
    """Return a load function: it sends keep-alive requests to a port for a number of seconds and returns how many."""

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


def handshakes(folder: Path, *, resumed: bool) -> Callable[[int, float], int]:
    """Return a load function: it sends one request per TLS connection for a number of seconds and returns how many."""
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


async def idle_kib(pid: int, port: int, folder: Path, connections: int) -> float:
    """Return the resident memory per idle TLS connection, in KiB."""
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))

    def resident() -> int:
        return sum(
            int(line.split()[1])
            for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
            for line in Path(f"/proc/{each}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )

    before, held = resident(), []
    for _ in range(connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
        writer.write(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        await reader.readuntil(b"hello")
        held.append(writer)
    took = (resident() - before) / connections
    for writer in held:
        writer.transport.abort()
    return took


def main(argv: list[str] | None = None) -> int:
    """Run all comparisons; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="edge_proxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default 5)")
    parser.add_argument("--only", metavar="WORD", default="", help="comparisons whose name has WORD")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    missing = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if missing:
        print(f"skipped: {' and '.join(missing)} not found")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder)
        (folder / "www").mkdir()
        (folder / "www" / "large").write_bytes(os.urandom(LARGE))
        folder.chmod(0o755)
        origin, theirs, ours = free_port(), free_port(), free_port()
        for port, text in ((origin, ORIGIN), (theirs, PROXY)):
            (folder / f"{port}.conf").write_text(text.format(folder=folder, port=port, origin=origin))
        edge = [sys.executable, "-m", "edge", "--https", f"127.0.0.1:{ours}",
                "--upstream", f"/=http://127.0.0.1:{origin}",
                "--cert", str(folder / "chain.pem"), "--key", str(folder / "key.pem"), "--max-clients", "12000",
                "--admin", f"127.0.0.1:{free_port()}"]  # fmt: skip
        loads = {
            "keep-alive, 1 field": by_wrk("/", ()),
            "keep-alive, 12 fields": by_wrk("/", FIELDS),
            "full handshake": handshakes(folder, resumed=False),
            "resumed handshake": handshakes(folder, resumed=True),
            "10 MB body": by_wrk("/large", ()),
        }
        with (
            running(["nginx", "-c", str(folder / f"{origin}.conf")], origin),
            running(["nginx", "-c", str(folder / f"{theirs}.conf")], theirs) as their_pid,
            running(edge, ours) as our_pid,
        ):
            rows = {}
            for title, load in loads.items():
                if args.only in title:
                    rows[title] = compare(load, (our_pid, ours), (their_pid, theirs), args.seconds, args.rounds)
            memory = {}
            if args.only in "idle":
                for who, pid, port in (("edge", our_pid, ours), ("nginx", their_pid, theirs)):
                    memory[who] = asyncio.run(idle_kib(pid, port, folder, 2000))
    if args.json:
        print(json.dumps({"requests_per_cpu_second": rows, "kib_per_idle_connection": memory}))
    else:
        print("requests per CPU-second        edge    nginx   ratio   bar")
        for title, row in rows.items():
            print(f"{title:<24} {row['edge']:>10.0f} {row['nginx']:>8.0f} {row['ratio']:>7.2f} {BARS[title]:>5.1f}")
        for who, kib in memory.items():
            print(f"KiB per idle TLS connection, {who:<6} {kib:>6.1f}")
    return int(any(row["ratio"] < BARS[title] for title, row in rows.items()))


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
