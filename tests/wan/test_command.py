"""Tests for the command line: error messages and, as root, packets through a real TUN device between namespaces."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wan import TunError, tun
from wan.__main__ import main

ROOT = Path(__file__).parents[2]
LINKS = ROOT / "lab/etc/links.toml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--links", "/nowhere/links.toml", "--tun", "x"], "wan: error: /nowhere/links.toml: expected a readable"),
        (["--links", str(LINKS), "--tun", "fb-no-such"], "wan: error: expected a TUN device fb-no-such, found none"),
        (["--links", str(LINKS), "--tun", "a-name-of-sixteen"], "wan: error: expected a TUN device name"),
    ],
    ids=["no-file", "no-device", "long-name"],
)
def test_an_unusable_file_or_device_is_one_line_and_exit_code_2(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_device_that_is_not_a_tun_is_refused() -> None:
    with pytest.raises(TunError, match=r"cannot open the TUN device lo|cannot open /dev/net/tun|lo to be up"):
        tun.open_tun("lo")


def test_missing_arguments_are_a_usage_error(capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        main([])
    assert refused.value.code == 2
    assert "--links" in capsys.readouterr().err


def namespaces_work() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        return False
    probe = f"fbtest{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return made


@pytest.mark.skipif(not namespaces_work(), reason="needs root and network namespaces")
def test_packets_through_a_tun_device_are_delayed_by_half_the_round_trip() -> None:
    bench = [sys.executable, str(ROOT / "bench/wan_delay.py")]
    command = [*bench, "--rtt", "30", "--rates", "100", "--seconds", "0.5", "--json"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode in {0, 1}, result.stderr  # 1: the machine is too busy to meet the benchmark's bounds
    (run,) = json.loads(result.stdout)["wan"]
    assert (run["sent"], run["lost"]) == (50, 0)
    assert run["one_way"]["min_ms"] >= 0
    assert run["one_way"]["median_ms"] < 5
    left = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert f"fbwan{os.getpid()}" not in left
