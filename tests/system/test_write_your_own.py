"""Tests for docs/write-your-own.md: run its commands, and create a host and a zone from its files."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from runtime import DockerLab
from runtime.machine import netns_problem
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/write-your-own.md").read_text(encoding="utf-8")


def blocks(section: str, language: str = "") -> list[str]:
    """Return the fenced code blocks in *language* of one section of the guide."""
    text = GUIDE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [block for named, block in fenced if named == language]
    assert found
    return found


def commands(section: str, language: str = "") -> list[tuple[list[str], int]]:
    """Return the firstbyte commands in one section of the guide, each with its arguments and its expected exit code."""
    lines = [line.partition("    #") for block in blocks(section, language) for line in block.splitlines()]
    return [(shlex.split(line)[1:], int(re.findall(r"exits (\d)", note)[0]) if note else 0) for line, _, note in lines]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder outside the checkout; return its path."""
    monkeypatch.setenv("FIRSTBYTE_PROJECT", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("section", "name"), [("A scenario", "my-scenario"), ("A drill", "my-drill")])
def test_a_new_experiment_passes_and_its_control_fails(shell: Shell, elsewhere: Path, section: str, name: str) -> None:
    for words, code in commands(section):
        answer = shell.firstbyte(*words)
        assert answer.code == code, f"{words}: {answer.out}{answer.err}"
    runs = sorted(elsewhere.glob(f"results/{name}/*"))
    assert len(runs) == 2
    assert {(run / "experiment.py").read_bytes() for run in runs} == {(elsewhere / f"{name}.py").read_bytes()}
    assert f"firstbyte run ./{name}.py --quick" in (runs[0] / "report.html").read_text(encoding="utf-8")


def test_with_nothing_but_docker(shell: Shell, elsewhere: Path) -> None:
    if not isinstance(shell.lab, DockerLab):
        pytest.skip(f"the lab runs on {shell.lab.runtime}")
    shell.firstbyte("new", "scenario", "my-scenario")
    elsewhere.chmod(0o755)
    compose = f"docker compose --project-directory {ROOT} "
    for line in blocks("A scenario", "docker")[0].splitlines():
        command = line.replace("docker compose ", compose).replace("run --rm -v", "run --rm -T -v")
        answer = shell.here("bash", "-c", command)
        assert answer.code == 0, answer.err
        assert "my-scenario: pass" in answer.out


def test_a_record_is_added_and_removed(shell: Shell) -> None:
    for words, _ in commands("A zone", "records"):
        answer = shell.firstbyte(*words)
        assert answer.code == 0, answer.err
        listed = shell.on("ns2", "python", "-m", "telemetry.call", "GET", "/admin/zones/example.com./records").out
        assert ('"mine.example.com."' in listed) == ("set" in words)


def test_a_host_and_a_zone_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    """A second lab in network namespaces starts from a copy of the lab's files plus the files of the guide."""
    if problem := netns_problem(shell.lab.topology):
        pytest.skip(problem)
    for folder in ("lab/etc", "dns/zones", "loadtest"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    compose = re.sub(r"^    ports: .*\n", "", compose, flags=re.MULTILINE)  # the first lab uses the published ports
    compose = compose.replace("services:\n", "services:\n" + blocks("A host", "yaml")[0], 1)
    added = blocks("A zone", "command")[0].strip()
    compose = compose.replace("--zone, example.com.=", f"{added} --zone, example.com.=", 1)
    added = blocks("A zone", "secondary")[0].strip()
    compose = compose.replace("--secondary, ", f"{added} --secondary, ", 1)
    (tmp_path / "docker-compose.yml").write_text(compose, encoding="utf-8")
    (tmp_path / "dns/zones/books.example.com.zone").write_text(blocks("A zone", "zone")[0], encoding="utf-8")
    with (tmp_path / "dns/zones/example.com.zone").open("a", encoding="utf-8") as parent:
        parent.write(blocks("A zone", "delegation")[0])
    monkeypatch.setenv("FIRSTBYTE_PROJECT", str(tmp_path))
    monkeypatch.setenv("FIRSTBYTE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "netns")
    monkeypatch.chdir(tmp_path)
    said = []
    try:
        for words, code in commands("A zone", "lab"):
            answer = shell.here(sys.executable, "-m", "firstbyte", *words)
            assert answer.code == code, f"{words}: {answer.err}"
            said.append(answer.out)
    finally:
        shell.firstbyte("down")
    _, address, trace, _ = said
    assert address.startswith("198.19.20.80")
    assert "HTTP/1.0 200 OK" in trace
