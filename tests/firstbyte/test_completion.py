"""Tests for shell completion: interactive completion in bash, and the names in the scripts for zsh and fish."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from firstbyte import completion
from firstbyte.cli import SHELLS, main

#: Bell character, which readline prints if a completion is ambiguous.
BELL = b"\a"
BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "firstbyte.bash"
    path.write_text(completion.script("bash"))
    return path


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("tra", {"trace", "traps"}),
        ("sta", {"status", "start"}),
        ("exec catalog-", {"catalog-1", "catalog-2", "catalog-3"}),
        ("stop ns1 edg", {"edge", "edge-far"}),
        ("run hand", {"handshake"}),
        ("drill ye", {"year"}),
        ("link access:ne", {"access:near"}),
        ("run --qu", {"--quick"}),
        ("trace --tls ", {"1.2", "1.3"}),
        ("--runtime net", {"netns"}),
        ("pki l", {"list"}),
        ("dns s", {"set", "show"}),
        ("dns log ns", {"ns1", "ns2", "ns-news"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bash_offers(line: str, completed: set[str], script: Path) -> None:
    words = ["firstbyte", *line.split(" ")]
    program = f"""
source {script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_shtab_firstbyte
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    found = subprocess.run([str(BASH), "--norc", "-c", program], check=True, capture_output=True, text=True).stdout
    assert set(found.split()) == completed


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_the_tab_key_completes_a_link_past_its_colon(script: Path) -> None:
    """The second region of a link is completed, although bash splits words at colons by default."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "> ", "HISTFILE": ""}
    shell = subprocess.Popen(
        [str(BASH), "--norc", "--noprofile", "-i"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, f"source {script}\nfirstbyte link access:roo\tb\t".encode())
        seen, deadline = b"", time.monotonic() + 20
        while b"access:root-b" not in seen.replace(BELL, b"") and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    # Tab completes "access:roo" to "access:root-"; the typed "b" then selects one of the two remaining regions.
    assert b"> firstbyte link access:root-b" in seen.replace(BELL, b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_knows_hosts_links_scenarios_and_drills(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    names = ("edge-far", "access:near", "handshake", "renewal-under-load", "--quick")
    assert [name for name in names if name.lstrip("-") not in script] == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_itself_accepts_its_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    path = tmp_path / "firstbyte"
    path.write_text(completion.script(shell))
    subprocess.run([program, "-n", str(path)], check=True)
