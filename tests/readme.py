"""The README's commands and their outputs, and how each is run in either runtime.

``python -m tests.readme`` runs those that show an output on the lab that is up, and writes the new outputs into the README.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.test_layout import ROOT

README = ROOT / "README.md"
PROMPT = "$ "
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
FIRSTBYTE = f"{sys.executable} -m firstbyte"
#: What a reader types with Docker, and what does the same without.  A command that none of them translates needs Docker.
TRANSLATIONS = (
    (r"docker compose run --rm (?:-T )?lab ", f"{FIRSTBYTE} "),
    (r"docker compose (kill|stop|start) ", rf"{FIRSTBYTE} \1 "),
    (r"docker compose up -d --wait$", f"{FIRSTBYTE} status >/dev/null || {FIRSTBYTE} start resolver"),
    (r"docker compose exec -T -u 1000 (\S+) ", rf"{FIRSTBYTE} exec \1 -- "),
)
#: Commands that a test of a running lab cannot repeat, and where they are tested instead.
ELSEWHERE = {
    "docker compose --profile '*' down -v --remove-orphans": "it removes the lab: .ci/run looks at what `make down` leaves",
    "docker image rm firstbyte:local firstbyte-lab:local": "it removes the image that the lab runs from",
    "make up": "the lab is up: the fixture `lab` started it with the same command line",
    "make down": "it removes the lab: .ci/run",
    "docker compose -f docker-compose.yml -f lab/observability/compose.yml --profile observability up -d --wait":
        "it pulls images: tests/observability",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the README."""

    text: str
    """As a reader types it, continued lines included."""
    output: str
    """What the README shows below it; "" if nothing."""
    block: str
    """The code block that it is part of: what one command needs, the others of its block need as well."""

    @property
    def code(self) -> int:
        """The exit code that it must have: a control fails."""
        return 1 if "--control" in self.text else 0

    def here(self, runtime: str) -> str | None:
        """Return the shell command that does this on this machine, or None if it needs Docker and *runtime* is another."""
        if runtime == "docker":
            return _with_our_python(self.text)
        return None if re.search(r"\bdocker\b", _without_docker(self.block)) else _without_docker(self.text)


def _with_our_python(text: str) -> str:
    return text.replace(".venv/bin/firstbyte ", f"{FIRSTBYTE} ")


def _without_docker(text: str) -> str:
    for pattern, replacement in TRANSLATIONS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return _with_our_python(text)


def commands(markdown: str) -> list[Command]:
    """Return the commands of *markdown*, in order."""
    return [command for block in BLOCK.findall(markdown) for command in _split(block)]


def _split(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines) if not line.endswith("\\\n")) + 1
        yield Command("".join(lines[:end]).rstrip("\n"), "".join(lines[end:]), block)


def words(output: str) -> set[str]:
    """Return the shape of an output: its words of letters, without figures, addresses and bars."""
    return set(re.findall(r"[A-Za-z]{2,}", output))


def renew(markdown: str, runtime: str) -> str:
    """Return *markdown* with the outputs that its commands have now.

    Raises:
        RuntimeError: a command failed.
    """

    def block(match: re.Match[str]) -> str:
        return "".join(f"{PROMPT}{each.text}\n{_output(each, runtime)}" for each in _split(match[0]))

    return BLOCK.sub(block, markdown)


def _output(command: Command, runtime: str) -> str:
    needed = command.output or " > " in command.text
    here = command.here(runtime)
    if not needed or here is None:
        return command.output
    done = subprocess.run(["bash", "-c", here], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != command.code:
        raise RuntimeError(
            f"expected exit code {command.code} of `{command.text}`, got {done.returncode}: {done.stderr}"
        )
    return done.stdout.rstrip("\n") + "\n" if command.output else ""


def main(arguments: list[str]) -> int:
    """Write the outputs of this moment into the README; *arguments*: the runtime."""
    (runtime,) = arguments or ["docker"]
    text = README.read_text(encoding="utf-8")
    README.write_text(renew(text, runtime), encoding="utf-8")
    Path(ROOT / "root.pem").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
