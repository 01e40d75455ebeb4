"""The README's commands and their outputs, and the equivalent of each command in either runtime.

``python -m tests.readme`` runs the commands that show an output on the running lab, and writes the new outputs to the
README.
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
#: Regular expressions that translate a Docker command to its equivalent in the runtime netns.  A command that still
#: contains ``docker`` after translation requires Docker.
TRANSLATIONS = (
    (r"docker compose run --rm (?:-T )?lab ", f"{FIRSTBYTE} "),
    (r"docker compose (kill|stop|start) ", rf"{FIRSTBYTE} \1 "),
    (r"docker compose up -d --wait$", f"{FIRSTBYTE} status >/dev/null || {FIRSTBYTE} start resolver"),
    (r"docker compose exec -T -u 1000 (\S+) ", rf"{FIRSTBYTE} exec \1 -- "),
)
#: Commands that cannot be repeated in a running lab, with the reason and the place where they are tested.
ELSEWHERE = {
    "docker compose --profile '*' down -v --remove-orphans": (
        "it removes the lab: .ci/run looks at what `make down` leaves"
    ),
    "docker image rm firstbyte:local firstbyte-lab:local": "it removes the image that the lab runs from",
    "make up": "the lab is up: the fixture `lab` started it with the same command line",
    "make down": "it removes the lab: .ci/run",
    ".venv/bin/firstbyte join --name mine.example.com --life 30 -- "
    "env HOOK=no EVERY=1 docs/subjects/nginx-certbot/serve.sh": "in namespaces only: tests/system/test_subjects.py",
    ".venv/bin/firstbyte drill renewal-under-load --target mine.example.com --quick": "tests/system/test_subjects.py",
    ".venv/bin/firstbyte leave mine.example.com": "tests/system/test_subjects.py",
    "docker compose -f docker-compose.yml -f lab/observability/compose.yml --profile observability up -d --wait":
        "it pulls images: tests/observability",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the README."""

    #: The command as a reader types it, including continuation lines.
    text: str
    #: Output that the README shows below the command; "" if there is none.
    output: str
    #: The code block that contains the command.  If one command of a block needs Docker, the whole block does.
    block: str

    @property
    def code(self) -> int:
        """Expected exit code: 1 for a negative control, which must fail, else 0."""
        return 1 if "--control" in self.text else 0

    def here(self, runtime: str) -> str | None:
        """Return the equivalent shell command on this machine; None if it needs Docker and *runtime* is netns."""
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
    """Return all commands in *markdown*, in order."""
    return [command for block in BLOCK.findall(markdown) for command in _split(block)]


def _split(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines) if not line.endswith("\\\n")) + 1
        yield Command("".join(lines[:end]).rstrip("\n"), "".join(lines[end:]), block)


def words(output: str) -> set[str]:
    """Return the words in an output, without numbers, addresses and bars, for comparing outputs of different runs."""
    return set(re.findall(r"[A-Za-z]{2,}", output))


def renew(markdown: str, runtime: str) -> str:
    """Return *markdown* with the current outputs of its commands.

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
    """Update the outputs in the README; *arguments* may contain the name of the runtime (default: docker)."""
    (runtime,) = arguments or ["docker"]
    text = README.read_text(encoding="utf-8")
    README.write_text(renew(text, runtime), encoding="utf-8")
    Path(ROOT / "root.pem").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
