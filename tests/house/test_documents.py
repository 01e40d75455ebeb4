"""Tests that links, paths, and scenario and drill names in the documents are valid."""

import re
import subprocess

import pytest

from drills import DRILLS
from scenarios import SCENARIOS
from tests.house.test_layout import ROOT

DOCUMENTS = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.split()  # fmt: skip
ROOMS = "bench|dns|docs|lab|loadtest|pki|services|tests"
EXPERIMENTS = {"run": {each.name for each in SCENARIOS}, "drill": {each.name for each in DRILLS}}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"https?:|#", t)]
    paths = re.findall(rf"`((?:{ROOMS})/[\w./-]+)`|\((docs/[\w./-]+\.md)\)", prose)
    broken = [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert broken + [p for pair in paths for p in pair if p and not (ROOT / p).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_experiments_in_commands_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    shown = re.findall(r"(?:firstbyte|run --rm lab) (run|drill) ([a-z][a-z-]*)", text)
    assert [f"{verb} {name}" for verb, name in shown if name not in EXPERIMENTS[verb] | {"all"}] == []
