"""Tests for ``firstbyte audit``: exit codes, output formats, and wrong command lines."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from firstbyte.cli import main
from tests.waiting import comes_true
from traps.catalogue import TRAPS

#: A client that accepts every server without sending a request, so that only its reactions to controls are right.
ACCEPTING = ("--", "true", "{url}")
REFUSING = ("--", "false", "{url}")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "plain", *ACCEPTING], 0, ""),
        (["--only", "expired", *ACCEPTING], 1, ""),
        (["--only", "plain", *REFUSING], 4, "false fetched no page, not even from servers that are right"),
        (["--only", "plan", *ACCEPTING], 2, "got 'plan'; did you mean 'plain'?"),
        (["--client", "crul"], 2, "got 'crul'; did you mean 'curl'?"),
        (["--client", "curl", *ACCEPTING], 2, "expected either --client or a command after --, got both"),
        ([], 2, "expected a command after --, with {url} in it, or --client NAME"),
        (["--", "true"], 2, "expected {url} in the command"),
        (["--", "no-such-program", "{url}"], 2, "got 'no-such-program', which does not exist or cannot be executed"),
        (["--limit", "0", *ACCEPTING], 2, "expected seconds from 1 to 600, got '0'"),
        (["--baseline", "none.json", *ACCEPTING], 2, "--baseline none.json: No such file or directory"),
        (["--junit", "none/a.xml", *ACCEPTING], 2, "expected a file in a folder that exists, got none/a.xml"),
        (["--markdown", "/tmp", *ACCEPTING], 2, "expected a file in a folder that exists, got /tmp"),
        (
            ["--junit", "a", "--markdown", "./a", *ACCEPTING],
            2,
            "expected two files for --junit and --markdown, got a twice",
        ),
        (["--", "/etc/passwd", "{url}"], 2, "which does not exist or cannot be executed"),
    ],
)
def test_the_exit_code_tells_how_the_client_did(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *words]) == code
    assert said in capsys.readouterr().err


def test_findings_are_printed_as_json_junit_and_markdown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    xml, markdown = tmp_path / "audit.xml", tmp_path / "audit.md"
    files = ["--junit", str(xml), "--markdown", str(markdown)]
    assert main(["audit", "--json", "--only", "expired", "plain", *files, *ACCEPTING]) == 1
    found = {each["trap"]: each["verdict"] for each in json.loads(capsys.readouterr().out)["true"]}
    assert found == {"good": "right", "plain": "right", "expired": "wrongly accepts"}
    cases = ET.fromstring(xml.read_text()).iter("testcase")  # noqa: S314 - a file that the test made
    assert {case.get("name"): [each.tag for each in case] for case in cases} == {
        "good": [],
        "plain": [],
        "expired": ["failure"],
    }
    assert "| `expired` | expired an hour ago | wrongly accepts |" in markdown.read_text()
    assert "| 2 of 3 |" in markdown.read_text()


def test_with_a_baseline_only_what_got_worse_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before, xml = tmp_path / "before.json", tmp_path / "audit.xml"
    body = {"true": [{"trap": "expired", "verdict": "wrongly accepts"}, {"trap": "self-signed", "verdict": "right"}]}
    before.write_text(json.dumps(body))
    audit = ["audit", "--baseline", str(before), "--junit", str(xml), "--only"]
    assert main([*audit, "expired", *ACCEPTING]) == 0
    cases = ET.fromstring(xml.read_text()).iter("testcase")  # noqa: S314 - a file that the test made
    assert {case.get("name"): [each.tag for each in case] for case in cases} == {"good": [], "expired": ["skipped"]}
    assert main([*audit, "self-signed", *ACCEPTING]) == 1
    assert "worse than the baseline: true, self-signed: wrongly accepts" in capsys.readouterr().err
    assert main([*audit, "wrong-host", *ACCEPTING]) == 1  # not in the baseline
    assert main([*audit, "expired", *REFUSING]) == 2
    assert "expected findings about false, got true" in capsys.readouterr().err
    before.write_text("[]")
    assert main(["audit", "--baseline", str(before), *ACCEPTING]) == 2
    assert "expected the output of `firstbyte audit --json`" in capsys.readouterr().err


def test_a_relative_path_of_a_client_is_relative_to_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = tmp_path / "my-client"
    client.write_text("#!/bin/sh\ntest -f $1\n")
    client.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "--only", "plain", "--", "./my-client", "{ca}", "{url}"]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_clients(number: signal.Signals, tmp_path: Path) -> None:
    client = f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600  # {{url}}"
    # If a shell starts the tests in the background, SIGINT is ignored, and child processes inherit this.
    words = ["env", "--default-signal=INT", sys.executable, "-m", "firstbyte", "audit"]
    words += ["--only", "plain", "--jobs", "1", "--", "sh", "-c", client]
    audit = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    try:
        assert comes_true((tmp_path / "pid").exists, 30)
        audit.send_signal(number)
        _, said = audit.communicate(timeout=30)
    finally:
        audit.kill()
        audit.communicate()
    assert audit.returncode == 130
    assert b"Traceback" not in said
    process = int((tmp_path / "pid").read_text())
    assert comes_true(lambda: not Path(f"/proc/{process}").exists())
    assert not list(tmp_path.glob("firstbyte-traps-*"))


def test_the_catalogue_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traps", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == [trap.name for trap in TRAPS]
    assert main(["traps"]) == 0
    assert "must-staple" in capsys.readouterr().out
