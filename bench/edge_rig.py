"""Test rig for benchmarks of the edge: nginx as an origin, and nginx and our edge as proxies, all on loopback."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key

NAME = "www.example.com"
#: Size of the large response body in bytes.
LARGE = 10_000_000

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
events {{ worker_connections 24000; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b{port}; \
proxy_temp_path {folder}/p{port};
  fastcgi_temp_path {folder}/f{port}; uwsgi_temp_path {folder}/u{port}; scgi_temp_path {folder}/s{port};
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=1024;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
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


def processes(pid: int) -> list[int]:
    """Return the IDs of a process and its children (nginx's worker is a child)."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children in seconds, with nanosecond resolution."""
    threads = (path for each in processes(pid) for path in Path(f"/proc/{each}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


@dataclass(frozen=True, slots=True)
class Rig:
    """Process ID and port of each of the two proxies in front of one origin."""

    folder: Path
    ours: tuple[int, int]
    theirs: tuple[int, int]

    @property
    def both(self) -> tuple[tuple[str, int, int], ...]:
        """Name, process ID and port of each proxy."""
        return ("edge", *self.ours), ("nginx", *self.theirs)


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """Start nginx as the origin, nginx as a proxy, and our edge; yield them."""
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
        with (
            running(["nginx", "-c", str(folder / f"{origin}.conf")], origin),
            running(["nginx", "-c", str(folder / f"{theirs}.conf")], theirs) as their_pid,
            running(edge, ours) as our_pid,
        ):
            yield Rig(folder, (our_pid, ours), (their_pid, theirs))


def missing(*programs: str) -> str:
    """Return an error line that names the *programs* that are not installed; empty if all are installed."""
    lacking = [name for name in programs if shutil.which(name) is None]
    return f"skipped: {' and '.join(lacking)} not found" if lacking else ""
