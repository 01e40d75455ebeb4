"""Tests for the optional Prometheus and Grafana: targets, metrics, alerts that can fire, loopback ports only."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import judges
from tests.house.test_addresses import ADDRESSES, COMPOSE
from tests.house.test_layout import ROOMS, ROOT

HERE = ROOT / "lab" / "observability"
ALERTS = [rule for group in yaml.safe_load((HERE / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
CASES = yaml.safe_load((HERE / "alerts_test.yml").read_text())["tests"]
DASHBOARD: dict[str, Any] = json.loads((HERE / "grafana" / "firstbyte.json").read_text())
ADDED: dict[str, Any] = yaml.safe_load((HERE / "compose.yml").read_text())["services"]


def metrics() -> set[str]:
    """Return the names of all metrics that alerts and dashboard panels query, without histogram suffixes."""
    expressions = [rule["expr"] for rule in ALERTS]
    expressions += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    named = {name for each in expressions for name in re.findall(r"\b(?:firstbyte|process)_\w+", each)}
    return {re.sub(r"_bucket$", "", name) for name in named}


def test_it_scrapes_every_host_that_plain_up_starts() -> None:
    (job,) = yaml.safe_load((HERE / "prometheus.yml").read_text())["scrape_configs"]
    targets = {entry["labels"]["host"]: entry["targets"] for entry in job["static_configs"]}
    plain = {name: ip for name, ip in ADDRESSES.items() if not COMPOSE["services"][name].get("profiles")}
    assert targets == {name: [f"{ip}:9900"] for name, ip in plain.items()}


def test_every_metric_is_exported_by_some_service() -> None:
    source = "".join(path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    assert len(metrics()) > 12
    assert {name for name in metrics() if f'"{name}"' not in source} == set()


def test_every_alert_is_tested_firing_and_most_also_silent() -> None:
    expected = {case["alertname"]: 0 for test in CASES for case in test["alert_rule_test"]}
    for test in CASES:
        for case in test["alert_rule_test"]:
            expected[case["alertname"]] += len(case["exp_alerts"])
    assert set(expected) == {rule["alert"] for rule in ALERTS}
    assert all(expected.values()), expected


def test_alert_rules_pass_their_unit_tests_in_promtool() -> None:
    command = judges.command("promtool", "test", "rules", "alerts_test.yml")
    done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reports_an_alert_that_no_longer_fires(tmp_path: Path) -> None:
    (tmp_path / "alerts_test.yml").write_text((HERE / "alerts_test.yml").read_text())
    (tmp_path / "alerts.yml").write_text((HERE / "alerts.yml").read_text().replace("== 0", "== 2"))
    command = judges.command("promtool", "test", "rules", "alerts_test.yml")
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "HostDown" in done.stderr + done.stdout


def test_promtool_accepts_the_configuration() -> None:
    command = judges.command("promtool", "check", "config", "prometheus.yml")
    done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap_and_have_a_query() -> None:
    cells = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine
        assert panel["targets"], panel["title"]
    assert max(x for x, _ in cells) < 24


def test_its_services_are_optional_and_publish_on_loopback_only() -> None:
    assert set(ADDED) == {"prometheus", "grafana"}
    for name, service in ADDED.items():
        assert service["profiles"] == ["observability"], name
        assert service["cap_drop"] == ["ALL"], name
        assert [port for port in service["ports"] if not port.startswith("127.0.0.1:")] == [], name
        for volume in service["volumes"]:
            assert (ROOT / volume.partition(":")[0]).exists(), volume
    assert ADDED["prometheus"]["networks"]["internet"]["ipv4_address"] not in ADDRESSES.values()


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the command docker, without an engine")
def test_compose_merges_it_with_the_lab() -> None:
    files = ["-f", "docker-compose.yml", "-f", "lab/observability/compose.yml"]
    command = ["docker", "compose", *files, "--profile", "observability", "config", "--services"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"prometheus", "grafana", "wan", "edge"} <= set(done.stdout.split())
