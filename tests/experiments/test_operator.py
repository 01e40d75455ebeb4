"""Tests for operator commands: the exchange of files, allowed commands, reversal, and a missing operator."""

import asyncio
import json
from pathlib import Path

import pytest

from experiments import Mailbox, NoOperatorError, Reply, Result, Run, Undo, operator
from experiments.operator import OPERATOR, is_allowed
from experiments.undo_log import UndoLog
from firstbyte.operator import REPLY, WAIT
from tests.experiments.lab import MemoryLab

FINISH = "pki rotate --finish"


class Outside:
    """An operator in memory: records commands, and answers with a prepared exit code."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.commands = code, list[str]()

    async def run(self, *words: str) -> Reply:
        self.commands.append(" ".join(words))
        return Reply(self.code, '{"step": 1}\n', "a host lags")


async def shell(script: str, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec("sh", "-c", script, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_command_and_its_reply_travel_through_files(tmp_path: Path) -> None:
    asking = asyncio.create_task(Mailbox(tmp_path).run("pki", "rotate", "root"))
    folder = str(tmp_path / operator.FOLDER)
    code, out = await shell(WAIT, folder)
    asked = json.loads(out)
    assert (code, asked["words"]) == (0, ["pki", "rotate", "root"])
    stale = {"number": "another", "code": 0, "out": "", "err": ""}
    for body in (stale, {**stale, "number": asked["number"], "code": 1, "out": 'done\n{"step": "prepare"}\n'}):
        assert (await shell(REPLY, folder, json.dumps(body)))[0] == 0
    reply = await asking
    assert (reply.code, reply.last) == (1, {"step": "prepare"})


async def test_without_a_reply_the_command_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "TIMEOUT", 0.1)
    with pytest.raises(NoOperatorError, match=r"pki rotate.*no reply within 0.1 s"):
        await Mailbox(tmp_path).run("pki", "rotate")


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["pki", "rotate", "root"], True),
        (["pki", "rotate", "--finish"], True),
        (["pki", "root"], False),
        (["down"], False),
        (["--runtime", "docker", "pki", "rotate"], False),
        ([], False),
    ],
)
def test_only_commands_of_the_list_are_run(words: list[str], allowed: bool) -> None:
    assert is_allowed(words) is allowed


async def test_an_experiment_that_was_started_inside_the_lab_has_no_operator(tmp_path: Path) -> None:
    run = Run(MemoryLab(), Result("test", "", {}), UndoLog(tmp_path))
    with pytest.raises(NoOperatorError, match="start the drill with `firstbyte` outside the lab"):
        await run.lab.operate("prepare", "pki", "rotate", "root")


async def test_the_reversal_is_on_disk_before_the_command_and_is_run_once(tmp_path: Path) -> None:
    outside = Outside()
    run = Run(MemoryLab(), Result("test", "", {}), UndoLog(tmp_path), operator=outside)
    for step in ("prepare", "sign-new"):
        await run.lab.operate(step, "pki", "rotate", "root", undo=FINISH)
    left = UndoLog(tmp_path)
    left.load()
    assert left.undos == [Undo(FINISH, OPERATOR, "RUN", FINISH)]
    assert await run.lab.undo_all() == []
    assert outside.commands == ["pki rotate root", "pki rotate root", FINISH]


async def test_a_reversal_that_fails_stays_in_the_undo_log(tmp_path: Path) -> None:
    run = Run(MemoryLab(), Result("test", "", {}), UndoLog(tmp_path), operator=Outside(1))
    await run.lab.operate("prepare", "pki", "rotate", "root", undo=FINISH)
    assert await run.lab.undo_all() == [f"{FINISH}: `firstbyte {FINISH}`: a host lags"]
    assert len(run.lab.undo_log) == 1
