"""Tests for the observer as a process: its report, its health, and the program that it runs."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from subject.__main__ import TRUST_STORE, write_trust_store
from subject.listening import ports
from telemetry.call import CallError, call
from tests.nameserver.daemons import free_port
from tests.peers import Papers
from tests.waiting import comes_true

#: Time-out for a process to start on a busy machine, in seconds.
SLOW = 20.0
TOKEN = "token"


@contextmanager
def observer(folder: Path, port: int, *command: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    (folder / "token").write_text(TOKEN)
    admin = f"127.0.0.1:{free_port()}"
    words = ["-m", "subject", "--name", "mine.example.com", "--port", str(port), "--folder", str(folder)]
    with subprocess.Popen(
        [sys.executable, *words, "--admin", admin, "--token-file", str(folder / "token"), "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield f"http://{admin}", process
        finally:
            process.terminate()
            process.communicate(timeout=SLOW)


def report(url: str, path: str = "/admin/subject") -> dict[str, Any]:
    try:
        return dict(call(url, "GET", path, token=TOKEN))
    except CallError as error:
        return {"error": str(error)}


def test_a_program_that_ends_is_reported_with_its_last_line(tmp_path: Path) -> None:
    with observer(tmp_path, 443, "sh", "-c", "echo first; echo; echo last; exit 3") as (url, _):
        assert comes_true(lambda: report(url).get("exit_code") == 3 and report(url)["last_line"] == "last", SLOW)
        assert "ended with exit code 3" in report(url, "/health")["error"]


def test_a_missing_program_ends_the_observer_with_one_line(tmp_path: Path) -> None:
    with observer(tmp_path, 443, "./missing") as (_, process):
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
        assert process.wait(SLOW) == 2
    assert lines[-1] == "subject: error: ./missing: No such file or directory"


def test_the_program_gets_the_environment_but_not_the_lab_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTBYTE_PREFIX", "198.19")
    monkeypatch.setenv("ACME_DIRECTORY", "https://ca.example.com/directory")
    with observer(tmp_path, 443, "sh", "-c", "env | grep -e FIRSTBYTE -e ACME; sleep 60") as (url, _):
        assert comes_true(lambda: report(url).get("last_line"), SLOW)
        assert report(url)["last_line"] == "ACME_DIRECTORY=https://ca.example.com/directory"


def test_sigterm_ends_the_program_and_its_children(tmp_path: Path) -> None:
    with observer(tmp_path, 443, "sh", "-c", "sleep 600 & echo $!; wait") as (url, process):
        assert comes_true(lambda: report(url).get("last_line"), SLOW)
        child = Path("/proc", report(url)["last_line"])
        assert child.exists()
        process.terminate()
        assert process.wait(SLOW) == 0
    assert comes_true(lambda: not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2], SLOW)


def test_only_ports_that_other_hosts_can_reach_are_listening() -> None:
    everywhere = "0.0.0.0"
    with (
        socket.create_server((everywhere, 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.11", 0)) as docker,
    ):
        reachable, local = one.getsockname()[1], {other.getsockname()[1], docker.getsockname()[1]}
        assert reachable in ports()
        assert not local & set(ports())
        assert reachable not in ports(admin=reachable)


@pytest.mark.skipif(shutil.which("keytool") is None, reason="Java's keytool is not installed")
def test_java_reads_the_trust_store(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    write_trust_store(tmp_path, papers.trust)
    command = ["keytool", "-list", "-keystore", str(tmp_path / TRUST_STORE), "-storepass", "changeit"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "trustedCertEntry" in done.stdout, done.stdout + done.stderr
