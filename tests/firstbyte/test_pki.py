"""Tests for wrong arguments of ``firstbyte pki``: one line on standard error and exit code 2, without a running lab."""

import pytest

from firstbyte.cli import main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["watch", "--once", "--trust", "/nonexistent", "localhost:1"], "expected a file with roots in PEM"),
        (["watch", "--once", "--json", "--trust", "/nonexistent", "localhost:1"], "expected a file with roots in PEM"),
        (["watch", "--once", "--inventory", "certificates.json"], "expected HOST:PORT, and no --lab, with --inventory"),
        (["watch", "--lab", "--inventory", "a.json", "a:1"], "expected HOST:PORT, and no --lab, with --inventory"),
        (["verify-log", "nope"], "expected HOST:PORT, got 'nope'"),
        (["verify-log", "www.example.com:0"], "expected a port from 1 to 65535"),
    ],
    ids=["no-roots", "no-roots-json", "inventory-without-endpoint", "inventory-in-the-lab", "no-port", "port-0"],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pki", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert says in line
