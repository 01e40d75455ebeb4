"""Tests for files that code hosts, editors and CI read: valid syntax, no machine-specific content, and consistency."""

import json
import re
import subprocess

import pytest
import yaml

from tests.house.test_layout import ROOT

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
YAML = [name for name in TRACKED if name.startswith(".") and name.endswith((".yml", ".yaml"))]


@pytest.mark.parametrize("name", YAML)
def test_it_is_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / name).read_text()), dict)


def test_issue_forms_have_what_the_format_requires() -> None:
    forms = [name for name in YAML if "ISSUE_TEMPLATE" in name and not name.endswith("config.yml")]
    assert len(forms) == 2
    for name in forms:
        form = yaml.safe_load((ROOT / name).read_text())
        assert {"name", "description", "body"} <= form.keys()
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids)
        assert {part["type"] for part in form["body"]} <= {"textarea", "input", "dropdown"}
        assert all(part["attributes"]["label"] for part in form["body"])


def test_the_development_container_uses_namespaces() -> None:
    text = (ROOT / ".devcontainer/devcontainer.json").read_text()
    settings = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert settings["containerEnv"] == {"FIRSTBYTE_RUNTIME": "netns"}
    assert settings["runArgs"] == ["--privileged"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (words,) = re.findall(r"make ((?:\w+ ?)+)$", settings["onCreateCommand"])
    assert set(words.split()) <= set(targets)


def test_the_workflow_only_calls_what_ci_runs() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"].split()[-1] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_pre_commit_runs_the_programs_of_make_lint() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repo["hooks"]}
    assert hooks == set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))


def test_no_document_depends_on_something_outside_the_repository() -> None:
    outside = re.compile(r"\.\./shared|/work/|/root/|/home/\w")
    texts = {name: (ROOT / name).read_text() for name in TRACKED if name.endswith(".md")}
    assert {name for name, text in texts.items() if outside.search(text)} == set()


def test_requirements_name_no_host() -> None:
    for name in TRACKED:
        if name.startswith("requirements/"):
            assert "://" not in (ROOT / name).read_text(), name


def test_the_readmes_pictures_are_small_and_the_recording_has_no_script() -> None:
    for scheme in ("light", "dark"):
        assert (ROOT / f"docs/console-{scheme}.png").stat().st_size < 250_000
    recording = (ROOT / "docs/session.svg").read_text()
    assert len(recording) < 100_000
    assert "<script" not in recording
    assert ">$</tspan>" in recording
    assert "firstbyte trace" in recording
