"""Tests for ``python -m waterfall`` with real sockets, and for its exit codes."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from tests.edge.conftest import Bench
from tests.peers import OK, Papers, replying
from waterfall.__main__ import main

HOST = "www.example.com"


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, list(arguments))


async def test_a_request_outside_the_lab_is_measured_and_not_predicted(bench: Bench, papers: Papers, capsys) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    arguments = (f"https://{HOST}/", "--trust", str(papers.trust), "--server", f"127.0.0.1:{port}", "--json")
    assert await run(*arguments) == 0
    body = json.loads(capsys.readouterr().out)
    assert {"url", "cold", "warm"} <= set(body)
    assert [phase["predicted_ms"] for phase in body["cold"]["phases"]] == [None] * 7
    assert body["warm"]["phases"][2]["detail"]["resumed"] is True
    assert "keylog" not in body


async def test_the_measurement_is_drawn(bench: Bench, capsys) -> None:
    port = await bench.start(replying(OK))
    assert await run(f"http://{HOST}/", "--server", f"127.0.0.1:{port}", "--cold") == 0
    out = capsys.readouterr().out
    assert "cold  http://www.example.com/" in out
    assert "warm" not in out


async def test_only_the_owner_may_read_a_key_log(bench: Bench, papers: Papers, tmp_path: Path, capsys) -> None:
    port = await bench.start(replying(OK), papers.server(HOST))
    keys = tmp_path / "keys"
    arguments = (f"https://{HOST}/", "--trust", str(papers.trust), "--server", f"127.0.0.1:{port}", "--cold", "--json")
    assert await run(*arguments, "--keylog", str(keys)) == 0
    assert "SECRET" in keys.read_text(encoding="ascii")
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert "SECRET" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ftp://www.example.com/"], 2, "expected a URL like https://www.example.com/, got 'ftp://www.example.com/'"),
        (["http://www.example.com/", "--server", "127.0.0.1:1"], 1,
         "www.example.com (127.0.0.1:1): Connection refused"),
        (["http://nowhere.invalid/", "--resolver", "127.0.0.1:1"], 1, "nowhere.invalid"),
        (["http://a.test/", "--keylog", "/nowhere/keys"], 2, "expected a writable file, got /nowhere/keys"),
        (["https://a.test/", "--trust", "/nowhere.pem", "--server", "127.0.0.1:1"], 1, "No such file or directory"),
    ],
    ids=["scheme", "refused", "name", "file", "trust"],
)  # fmt: skip
async def test_an_error_is_one_line_with_the_right_exit_code(
    arguments: list[str], code: int, said: str, capsys
) -> None:
    assert await run(*arguments) == code
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["http://a/", "--tls", "1.1"], ["http://a/", "--timeout", "-1"]], ids=str)
async def test_usage_errors_exit_2(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err
