"""Tests for both servers with several worker processes: shared ports, restarts, and rejected settings."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest

import nameserver.__main__
from telemetry.call import CallError, call
from tests.waiting import comes_true

ZONE = "$TTL 60\n@ IN SOA ns hm {} 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
WORKERS = 2


class Running:
    """A server with two workers."""

    def __init__(self, process: subprocess.Popen[str], port: int, url: str) -> None:
        self.process, self.port, self.url = process, port, url

    def pids(self) -> list[int]:
        """Return the process IDs of the workers, without the front process."""
        pid = self.process.pid
        children = list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        inodes = {
            line.split()[9] for line in Path("/proc/net/udp").read_text().splitlines() if f":{self.port:04X} " in line
        }
        sockets = {f"socket:[{inode}]" for inode in inodes}
        return [child for child in children if sockets & _open_files(child)]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return call(self.url, method, path, body, token="secret")

    def healthy(self) -> bool:
        try:
            return bool(call(self.url, "GET", "/health")["status"] == "ok")
        except CallError:
            return False

    def ask(self, count: int, qname: str = "localhost.", qtype: str = "A", **options: Any) -> list[dns.message.Message]:
        """Return the answers to *count* queries, each from a new port, so that every worker receives some."""
        query = dns.message.make_query(qname, qtype, **options)
        return [dns.query.udp(query, "127.0.0.1", 5, self.port) for _ in range(count)]


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH115, PTH208 - the link targets, such as socket:[1], are not paths
    except OSError:  # the process has exited meanwhile
        return set()


@contextmanager
def running(module: str, folder: Path, *arguments: str) -> Iterator[Running]:
    token = folder / "token"
    token.write_text("secret")
    command = [sys.executable, "-m", module, "--listen", "127.0.0.1:0", "--workers", str(WORKERS), *arguments]
    command += ["--admin", "127.0.0.1:0", "--token-file", str(token)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        ports = {what: port for port, what in re.findall(r":(\d+) \((\w+)", "".join(lines))}
        server = Running(process, int(ports["udp"]), f"http://127.0.0.1:{ports['admin']}")
        comes_true(server.healthy)
        yield server
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def counted(server: Running, name: str) -> int:
    """Return the sum of a counter over all labels, on the merged metrics page of all workers."""
    page = call(server.url, "GET", "/metrics")
    return sum(int(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\d+)$", page, re.MULTILINE))


def test_workers_share_the_name_servers_port_and_one_page(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    path.write_text(ZONE.format(1))
    with running("nameserver", tmp_path, "--zone", f"localhost.={path}") as server:
        assert len(server.pids()) == WORKERS
        server.ask(40, "ns.localhost.")
        assert counted(server, "firstbyte_nameserver_queries_total") == 40
        log = server.call("GET", "/admin/queries?limit=100")
        assert len(log) == 40
        assert [row["time"] for row in log] == sorted((row["time"] for row in log), reverse=True)
        server.call("POST", "/admin/faults/servfail", {})
        assert {message.rcode() for message in server.ask(20)} == {2}
        server.call("DELETE", "/admin/faults")

        path.write_text(ZONE.format(7))
        server.call("POST", "/admin/zones/localhost./reload")
        assert {message.answer[0][0].serial for message in server.ask(20, qtype="SOA")} == {7}
        body = {"name": "new", "type": "A", "ttl": 5, "rdata": ["192.0.2.2"]}
        with pytest.raises(CallError, match=r"409.*several workers"):
            server.call("PUT", "/admin/zones/localhost./records", body)

        victim = server.pids()[0]
        os.kill(victim, signal.SIGKILL)
        comes_true(lambda: len(server.pids()) == WORKERS and victim not in server.pids() and server.healthy())
        assert {message.answer[0][0].serial for message in server.ask(20, qtype="SOA")} == {7}, "not the first file"


def test_workers_share_the_resolvers_port_and_each_has_a_cache(tmp_path: Path) -> None:
    hints = tmp_path / "hints"
    hints.write_text(". 60 NS a.root.\na.root. 60 A 127.0.1.9\n")
    with running("resolver", tmp_path, "--hints", str(hints)) as server:
        assert len(server.pids()) == WORKERS
        assert {message.answer[0].to_text() for message in server.ask(40)} == {"localhost. 10800 IN A 127.0.0.1"}
        assert server.call("GET", "/admin/cache")["hits"] == 40
        assert len(server.call("GET", "/admin/resolutions")) == WORKERS
        assert server.call("POST", "/admin/cache/flush", {"all": True}) == {"flushed": 0}


@pytest.mark.parametrize("module", ["nameserver", "resolver"])
def test_a_cookie_of_one_worker_is_good_for_all(module: str, tmp_path: Path) -> None:
    (tmp_path / "zone").write_text(ZONE.format(1))
    (tmp_path / "hints").write_text(". 60 NS a.root.\na.root. 60 A 127.0.1.9\n")
    given = {"nameserver": ["--zone", f"localhost.={tmp_path}/zone"], "resolver": ["--hints", f"{tmp_path}/hints"]}
    with running(module, tmp_path, "--require-cookies", *given[module]) as server:
        (first,) = server.ask(1, options=[dns.edns.CookieOption(b"12345678", b"")])
        (cookie,) = first.options
        assert first.rcode() == dns.rcode.BADCOOKIE
        assert {message.rcode() for message in server.ask(20, options=[cookie])} == {dns.rcode.NOERROR}


@pytest.mark.parametrize("arguments", [["--state", "/tmp"], ["--also-notify", "192.0.2.1"]], ids=["state", "notify"])
def test_what_one_process_must_do_alone_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "zone"
    path.write_text(ZONE.format(1))
    argv = ["--listen", "127.0.0.1:0", "--zone", f"localhost.={path}", "--workers", "2", *arguments]
    with pytest.raises(SystemExit) as end:
        nameserver.__main__.main(argv)
    assert end.value.code == 2
    assert "with several workers" in capsys.readouterr().err


def test_a_port_that_another_server_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zone"
    path.write_text(ZONE.format(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        argv = ["--listen", f"127.0.0.1:{port}", "--zone", f"localhost.={path}", "--workers", "2"]
        assert nameserver.__main__.main(argv) == 2
    assert capsys.readouterr().err == f"nameserver: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
