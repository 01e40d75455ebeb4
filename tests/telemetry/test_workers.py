"""Tests for services with several worker processes, using the real service `tests.telemetry.shared_port`."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry import merging
from telemetry.call import CallError, call
from tests.waiting import comes_true

TOKEN = "secret"


class Service:
    """Running `shared_port` service with two workers."""

    def __init__(self, folder: Path, *more: str) -> None:
        (folder / "token").write_text(TOKEN)
        argv = [
            "--workers",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--token-file",
            f"{folder}/token",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.telemetry.shared_port", *argv, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.addresses: dict[str, str] = {}
        while len(self.addresses) < 2 and (line := self.process.stdout.readline()):
            *_, address, name = line.split()
            self.addresses[name.strip("()")] = address

    def admin(self, method: str, path: str) -> Any:
        return call(f"http://{self.addresses['admin']}", method, path, token=TOKEN)

    def healthy(self) -> bool:
        try:
            return bool(self.admin("GET", "/health")["status"] == "ok")
        except CallError:
            return False

    def say(self, word: bytes) -> bytes:
        host, _, port = self.addresses["tcp"].partition(":")
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(word + b"\n")
            return sock.recv(100)

    def children(self) -> list[int]:
        """Return the process IDs of the workers and the front."""
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def samples(self) -> dict[str, float]:
        lines = self.admin("GET", "/metrics").splitlines()
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    try:
        assert comes_true(running.healthy)
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=10)
    assert running.process.returncode == 0


def test_connections_reach_every_worker_and_counters_are_summed(service: Service) -> None:
    assert {service.say(b"hit") for _ in range(40)} == {b"1 first", b"2 first"}
    samples = service.samples()
    assert samples["hits_total"] == 40
    assert samples["number"] == 2
    assert samples['firstbyte_worker_up{worker="1"}'] == samples['firstbyte_worker_up{worker="2"}'] == 1
    assert samples['process_resident_memory_bytes{worker="2"}'] > 1e6


def test_a_fault_is_switched_on_in_every_worker(service: Service) -> None:
    service.admin("POST", "/admin/faults/silence")
    assert service.admin("GET", "/health")["faults"] == ["silence"]
    assert service.samples()['firstbyte_fault_on{fault="silence"}'] == 1
    service.admin("DELETE", "/admin/faults")
    assert service.admin("GET", "/admin/faults")["silence"]["on"] is False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/admin/faults/none", 404), ("GET", "/admin/none", 404), ("POST", "/admin/kernel", 405)],
    ids=["unknown-fault", "no-such-page", "wrong-method"],
)
def test_errors_of_workers_are_passed_on(service: Service, method: str, path: str, status: int) -> None:
    with pytest.raises(CallError) as caught:
        service.admin(method, path)
    assert caught.value.status == status


def test_the_workers_check_the_token(service: Service) -> None:
    for method, path in (("GET", "/admin/kernel"), ("DELETE", "/admin/faults")):
        with pytest.raises(CallError, match="401"):
            call(f"http://{service.addresses['admin']}", method, path, token="wrong")


def test_a_worker_that_dies_is_started_again_and_counted(service: Service) -> None:
    assert service.say(b"die") == b""
    assert comes_true(service.healthy)
    samples = service.samples()
    assert (
        samples['firstbyte_worker_restarts_total{worker="1"}'] + samples['firstbyte_worker_restarts_total{worker="2"}']
        == 1
    )
    answers = {service.say(b"?") for _ in range(40)}
    assert sorted(each.split()[1] for each in answers) == [b"again", b"first"]


def test_sighup_reaches_every_worker(service: Service) -> None:
    os.kill(service.process.pid, signal.SIGHUP)
    assert comes_true(lambda: service.admin("GET", "/health")["checks"]["reloads"]["detail"] == "1")
    parts = merging.health({1: "down", 2: service.admin("GET", "/health")})
    assert (parts["status"], parts["checks"]["worker 1"]["detail"]) == ("failing", "down")


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    running = Service(tmp_path)
    try:
        assert comes_true(lambda: len(running.children()) == 3)
        children = running.children()
    finally:
        running.process.kill()
        running.process.communicate()
    assert comes_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_usage_error_of_one_worker_at_the_start_ends_the_service(tmp_path: Path) -> None:
    running = Service(tmp_path, "--broken")
    running.process.communicate(timeout=10)
    assert running.process.returncode == 2


def test_a_port_that_another_program_has_is_refused(service: Service) -> None:
    argv = ["--workers", "2", "--listen", service.addresses["tcp"]]
    second = subprocess.run(
        [sys.executable, "-m", "tests.telemetry.shared_port", *argv], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "Address already in use" in second.stderr


def test_gauges_are_merged_as_they_are_declared() -> None:
    def page(value: int) -> list[Any]:
        return [
            {"head": "# HELP a A\n# TYPE a gauge", "across": across, "samples": [f'a{{of="{across}"}} {value}']}
            for across in ("sum", "max", "min", "worker")
        ] + [{"head": "# HELP b B\n# TYPE b gauge", "across": "worker", "samples": [f"b {value}.5"]}]

    assert merging.metrics({1: page(2), 2: page(3)}).splitlines() == [
        "# HELP a A",
        "# TYPE a gauge",
        'a{of="sum"} 5',
        'a{of="max"} 3',
        'a{of="min"} 2',
        'a{of="worker",worker="1"} 2',
        'a{of="worker",worker="2"} 3',
        "# HELP b B",
        "# TYPE b gauge",
        'b{worker="1"} 2.5',
        'b{worker="2"} 3.5',
    ]
