"""Tests for browser access to the results folder, and for the rejection of paths outside it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console import reports


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    run = root / "time-wait" / "20261124T213910Z"
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps({"verdict": "pass"}), encoding="utf-8")
    (run / "report.html").write_text("<p>report", encoding="utf-8")
    (run / ".hidden").write_text("x", encoding="utf-8")
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (root / "way-out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    return root


@pytest.mark.parametrize("path", ["", "time-wait/", "time-wait/20261124T213910Z/report.html", "/time-wait//"])
def test_a_path_inside_is_found(results: Path, path: str) -> None:
    assert reports.locate(results, path).is_relative_to(results)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../secret", id="dots"),
        pytest.param("time-wait/../../secret", id="dots-within"),
        pytest.param("..", id="parent"),
        pytest.param("....//secret", id="four-dots"),
        pytest.param("way-out/secret", id="symbolic-link"),
        pytest.param("loop", id="link-to-itself"),
        pytest.param("..\\secret", id="backslash"),
        pytest.param("time-wait/20261124T213910Z/.hidden", id="hidden"),
        pytest.param("time-wait\0", id="nul"),
        pytest.param("none", id="missing"),
        pytest.param("x" * 5000, id="too-long"),
        pytest.param("/etc/passwd", id="absolute"),
    ],
)
def test_a_path_outside_is_not_found(results: Path, path: str) -> None:
    with pytest.raises(reports.NotFoundError):
        reports.locate(results, path)


@given(
    st.lists(st.sampled_from(["..", ".", "/", "\\", "secret", "way-out", "time-wait", "a", "\0", "%2e"]), max_size=8)
)
def test_no_path_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "no-way-out"
    root = base / "results"
    (root / "time-wait").mkdir(parents=True, exist_ok=True)
    (base / "secret").touch()
    if not (root / "way-out").is_symlink():
        (root / "way-out").symlink_to(base)
    try:
        found = reports.locate(root, "/".join(parts))
    except reports.NotFoundError:
        return
    assert found.is_relative_to(root)


def test_the_newest_runs_come_first_with_their_verdict(results: Path) -> None:
    running = results / "handshake" / "20261124T220000Z"
    running.mkdir(parents=True)
    broken = results / "ttl" / "20261124T200000Z"
    broken.mkdir(parents=True)
    (broken / "result.json").write_text("{", encoding="utf-8")
    assert reports.latest(results) == [
        {
            "name": "handshake",
            "time": "20261124T220000Z",
            "verdict": None,
            "href": "/results/handshake/20261124T220000Z/",
        },
        {
            "name": "time-wait",
            "time": "20261124T213910Z",
            "verdict": "pass",
            "href": "/results/time-wait/20261124T213910Z/report.html",
        },
        {"name": "ttl", "time": "20261124T200000Z", "verdict": None, "href": "/results/ttl/20261124T200000Z/"},
    ]
    assert len(reports.latest(results, 1)) == 1


def test_without_the_folder_there_are_no_runs(tmp_path: Path) -> None:
    assert reports.latest(tmp_path / "none") == []


def test_a_listing_escapes_names(tmp_path: Path) -> None:
    (tmp_path / "<img src=x>").touch()
    listed = reports.page("", reports.listing(tmp_path))
    assert "<img" not in listed
    assert 'href="%3Cimg%20src%3Dx%3E"' in listed


def test_a_listing_omits_hidden_files_and_symbolic_links(results: Path) -> None:
    assert [entry.name for entry in reports.listing(results)] == ["time-wait"]


def test_an_empty_listing_says_which_commands_write_here(tmp_path: Path) -> None:
    assert "firstbyte run" in reports.page("", reports.listing(tmp_path))
