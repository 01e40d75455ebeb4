"""Tests for an edge with two worker processes: shared TLS sessions, certificates and settings, and shutdown."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from telemetry.call import call
from tests.peers import NAME, Papers
from tests.waiting import comes_true

REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()


class _Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - signature of BaseHTTPRequestHandler
        pass


class Edge:
    """Edge with two workers and a certificate file, in front of a plain HTTP origin."""

    def __init__(self, papers: Papers, folder: Path) -> None:
        self.papers = papers
        self.pem, self.settings, token = folder / "pair.pem", folder / "edge.toml", folder / "token"
        self.renew()
        token.write_text("secret")
        self.origin = ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
        threading.Thread(target=self.origin.serve_forever, daemon=True).start()
        self.route("/")
        argv = ["--https", "127.0.0.1:0", "--workers", "2", "--settings", str(self.settings), "--admin", "127.0.0.1:0"]
        argv += ["--cert", str(self.pem), "--key", str(self.pem), "--token-file", str(token)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = [re.split(r"[ :\n()]+", self.process.stdout.readline()) for _ in range(2)]
        ports = {words[4]: int(words[3]) for words in found}
        self.port, self.url = ports["https"], f"http://127.0.0.1:{ports['admin']}"

    def renew(self) -> None:
        """Replace the certificate file of the edge."""
        new = self.papers.pair(NAME).read_bytes()
        self.pem.with_suffix(".new").write_bytes(new)
        self.pem.with_suffix(".new").rename(self.pem)

    def route(self, prefix: str) -> None:
        """Write a settings file with a single route for *prefix*."""
        target = f"http://127.0.0.1:{self.origin.server_port}"
        self.settings.write_text(f'[[route]]\nprefix = "{prefix}"\ntargets = ["{target}"]\n')

    def health(self) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]), timeout=10)
        with closing(connection):
            connection.request("GET", "/health")
            return {"checks": {}, **json.load(connection.getresponse())}

    def get(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[int, ssl.SSLSession, bool, str]:
        """Send a request; return status, TLS session, whether it was resumed, and certificate serial number."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 5) as raw,
            context.wrap_socket(raw, server_hostname=NAME, session=session) as sock,
        ):
            sock.sendall(REQUEST)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            assert sock.session is not None
            serial = (sock.getpeercert() or {})["serialNumber"]
            return int(answer.split()[1]), sock.session, bool(sock.session_reused), f"{int(str(serial), 16):x}"

    def samples(self) -> dict[str, float]:
        lines = call(self.url, "GET", "/metrics").splitlines()
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.fixture
def edge(papers: Papers, tmp_path: Path) -> Iterator[Edge]:
    running = Edge(papers, tmp_path)
    try:
        assert comes_true(lambda: running.health()["status"] == "ok"), running.health()
        yield running
    finally:
        running.process.terminate()
        running.process.communicate(timeout=10)
        running.origin.shutdown()
        running.origin.server_close()
    assert running.process.returncode == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_session_is_resumed_whichever_worker_gets_the_connection(edge: Edge, version: ssl.TLSVersion) -> None:
    context = edge.papers.client()
    context.maximum_version = version
    _, session, _, _ = edge.get(context)
    found = [edge.get(context, session)[2] for _ in range(20)]
    assert found == [True] * 20
    samples = edge.samples()
    label = f'version="{version.name.replace("v1_", "v1.")}"'
    assert samples[f'firstbyte_edge_handshakes_total{{{label},resumed="true"}}'] == 20
    assert samples['firstbyte_edge_requests_total{listener="https",status="200"}'] == 21


def test_sighup_changes_certificate_and_routes_in_every_worker(edge: Edge) -> None:
    context = edge.papers.client()
    before = edge.papers.serial
    edge.renew()
    edge.route("/else")
    os.kill(edge.process.pid, signal.SIGHUP)
    assert comes_true(lambda: "settings" in edge.health()["checks"])
    found = {(status, serial) for status, _, _, serial in (edge.get(context) for _ in range(20))}
    assert found == {(404, edge.papers.serial)}
    assert edge.papers.serial != before


@pytest.mark.parametrize("broken", [False, True], ids=["valid", "broken-since"])
def test_a_worker_that_is_started_again_has_the_last_valid_settings(edge: Edge, broken: bool) -> None:
    edge.route("/else")
    os.kill(edge.process.pid, signal.SIGHUP)
    assert comes_true(lambda: "settings" in edge.health()["checks"])
    if broken:
        edge.settings.write_text("[[route]]\n")
        os.kill(edge.process.pid, signal.SIGHUP)
        assert comes_true(lambda: not edge.health()["checks"]["settings"]["ok"])
    children = Path(f"/proc/{edge.process.pid}/task/{edge.process.pid}/children").read_text().split()
    for pid in children[:2]:
        os.kill(int(pid), signal.SIGKILL)
    assert comes_true(lambda: sum(v for k, v in edge.samples().items() if "worker_restarts" in k) == 2)
    assert comes_true(lambda: edge.health()["checks"].get("https", {"ok": False})["ok"])
    assert {edge.get(edge.papers.client())[0] for _ in range(20)} == {404}


def test_pools_are_summed(edge: Edge) -> None:
    context = edge.papers.client()
    for _ in range(20):
        edge.get(context)
    (row,) = call(edge.url, "GET", "/admin/pool", token="secret")["upstreams"]
    assert row["opened"] + row["reused"] == 20
    assert row["opened"] == row["idle"] == 2, json.dumps(row)
    assert call(edge.url, "POST", "/admin/pool/purge", token="secret") == {"closed": 2}
