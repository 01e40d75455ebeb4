"""Tests for plans as configuration: nginx and HAProxy accept it, Envoy's is YAML, and the sysctls exist."""

import subprocess
from pathlib import Path

import pytest
import yaml

from planner.plan import Plan, plan
from planner.settings import render_settings
from tests import judges
from tests.planner.test_plan import COSTS


@pytest.fixture
def busy() -> Plan:
    return plan({"rps": "15k..20k", "ttl": "30", "idle_timeout": "60s"}, COSTS)


def accepted(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nginx_accepts_its_settings(busy: Plan, tmp_path: Path) -> None:
    judges.require("nginx")
    pair = tmp_path / "pair.pem"
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=service", "-days", "1")
    accepted("openssl", "req", "-x509", *key, "-keyout", str(pair), "-out", str(tmp_path / "certificate.pem"))
    pair.write_text(pair.read_text() + (tmp_path / "certificate.pem").read_text())
    text = (
        render_settings(busy, "nginx")
        .replace("/etc/ssl/service.pem", str(pair))
        .replace("/etc/ssl/service.key", str(pair))
    )
    text = text.replace("origin.example.com", "127.0.0.1")  # nginx resolves names when it reads the file
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{\n{text}\n}}\n")
    accepted(judges.find("nginx") or "", "-t", "-p", str(tmp_path), "-c", str(path))
    assert "keepalive_timeout 58s" in text


def test_haproxy_accepts_its_settings(busy: Plan, tmp_path: Path) -> None:
    judges.require("haproxy")
    path = tmp_path / "haproxy.cfg"
    modes = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
    modes += "frontend service\n    bind 127.0.0.1:8080\n    default_backend origins\n"
    path.write_text(modes + render_settings(busy, "haproxy"))
    said = accepted(judges.find("haproxy") or "", "-c", "-f", str(path))
    assert "WARNING" not in said


def test_envoys_settings_are_yaml_with_the_pool_and_its_timeout(busy: Plan) -> None:
    (cluster,) = yaml.safe_load(render_settings(busy, "envoy"))["clusters"]
    (limits,) = cluster["circuit_breakers"]["thresholds"]
    assert f"{limits['max_connections']} connections" == busy.row("pool_p99").text().rpartition(" to ")[2]
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"]["idle_timeout"] == "58s"


def test_sysctls_exist_on_this_kernel_and_hold_the_plan(busy: Plan) -> None:
    settings = dict(
        line.split(" = ") for line in render_settings(busy, "sysctl").splitlines() if line and not line.startswith("#")
    )
    assert all(Path("/proc/sys", *name.split(".")).exists() for name in settings)
    value = busy.row("waiting").value
    assert value is not None
    assert int(settings["net.ipv4.tcp_max_tw_buckets"]) > value.high
