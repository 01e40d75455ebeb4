"""Tests for variable substitution in the compose file, which must match Compose."""

from pathlib import Path

import pytest

from netns_engine import compose, variables
from netns_engine.compose import ComposeError
from netns_engine.errors import LabError

VALUES = {"PREFIX": "10.77", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        pytest.param("${PREFIX}.20.10", "10.77.20.10", id="braced"),
        pytest.param("$PREFIX.20.10", "10.77.20.10", id="plain"),
        pytest.param("${PREFIX:-198.19}.0.1 ${OTHER:-198.19}.0.2", "10.77.0.1 198.19.0.2", id="default"),
        pytest.param("${EMPTY:-default}|${EMPTY-default}", "default|", id="empty-value"),
        pytest.param("127.0.0.1:${PORT:-8080}:8080/tcp", "127.0.0.1:8080:8080/tcp", id="port"),
        pytest.param("${FILES:-.}/lab/etc:/srv/etc:ro", "./lab/etc:/srv/etc:ro", id="path"),
        pytest.param("echo $$HOME", "echo $HOME", id="escaped"),
        pytest.param("${PREFIX:?needed}", "10.77", id="required"),
    ],
)
def test_references_are_filled_in(text: str, filled: str) -> None:
    assert variables.fill(text, VALUES) == filled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("${OTHER}", "expected a value for ${OTHER}: set it in the environment", id="no-value"),
        pytest.param("${EMPTY:?choose one}", "expected a value for ${EMPTY}: choose one", id="required"),
        pytest.param("${PREFIX:+other}", "expected $NAME", id="unsupported-operator"),
        pytest.param("${}", "expected $NAME", id="no-name"),
        pytest.param("costs 5$", "expected $NAME", id="lone-dollar"),
    ],
)
def test_a_reference_without_a_value_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        variables.fill(text, VALUES)
    assert problem in str(caught.value)


def test_an_env_file_has_comments_quotes_and_exports() -> None:
    text = "# two labs\nA=1\nexport B = two words # a comment\nC=\"quoted # text\" # comment\nD='x'\nE=\n\n"
    assert variables.parse(text) == {"A": "1", "B": "two words", "C": "quoted # text", "D": "x", "E": ""}
    with pytest.raises(LabError, match=r"\.env:2: expected NAME=VALUE, got 'nonsense'"):
        variables.parse("A=1\nnonsense\n")


def test_the_environment_overrides_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variables.FILES, raising=False)
    (tmp_path / ".env").write_text("FIRSTBYTE_PREFIX=10.77\nCOMPOSE_PROJECT_NAME=second\n")
    monkeypatch.setenv("FIRSTBYTE_PREFIX", "10.78")
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    found = variables.read(tmp_path)
    assert (found["FIRSTBYTE_PREFIX"], found["COMPOSE_PROJECT_NAME"]) == ("10.78", "second")
    (tmp_path / "third.env").write_text("COMPOSE_PROJECT_NAME=third\n")
    monkeypatch.setenv(variables.FILES, str(tmp_path / "third.env"))
    assert variables.read(tmp_path)["COMPOSE_PROJECT_NAME"] == "third"
    monkeypatch.setenv(variables.FILES, str(tmp_path / "missing.env"))
    with pytest.raises(LabError, match=r"missing\.env: No such file"):
        variables.read(tmp_path)


FILE = """\
name: ${NAME:-one}
x-host: &host
  mem_limit: ${MEMORY:-64m}
  read_only: ${READ_ONLY:-true}
services:
  host: {<<: *host, networks: {internet: {ipv4_address: "${PREFIX:-198.19}.0.9"}}}
networks: {internet: {ipam: {config: [{subnet: "${PREFIX:-198.19}.0.0/16"}]}}}
"""


def test_values_of_the_compose_file_keep_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text(FILE)
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    file = compose.load(path)
    service = file.service("host")
    assert (file.name, service.memory, service.read_only, str(service.address)) == ("one", 2**26, True, "198.19.0.9")
    for name, value in {"NAME": "x", "PREFIX": "10.77", "MEMORY": "1m", "READ_ONLY": "false"}.items():
        monkeypatch.setenv(name, value)
    file = compose.load(path)
    service = file.service("host")
    assert (file.name, str(file.subnet)) == ("x", "10.77.0.0/16")
    assert (service.memory, service.read_only, str(service.address)) == (2**20, False, "10.77.0.9")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "other")
    assert compose.load(path).name == "other"


def test_a_variable_without_a_value_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text(FILE.replace("${MEMORY:-64m}", "${NO_SUCH_MEMORY}"))
    with pytest.raises(ComposeError, match=r"docker-compose.yml:3: expected a value for \$\{NO_SUCH_MEMORY\}"):
        compose.load(path)
