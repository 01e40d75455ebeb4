"""Runs a client against the traps, and compares its reaction to each trap with the correct reaction."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from traps.catalogue import TRAPS, Trap
from traps.zoo import Stand, zoo

#: Time in seconds after which a client counts as hanging, and number of clients that run concurrently.
LIMIT, JOBS = 15.0, 4
#: Environment variables from which HTTP clients read the file with trusted root certificates.
TRUST_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
#: Environment variables that would redirect requests to a proxy.
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
#: Maximum number of bytes of a client's standard error that are read.
MAX_SAID = 64 << 10
_PYTHON = (sys.executable, "-c")
_AIOHTTP = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.request("GET", sys.argv[1], raise_for_status=True) as response:
        await response.read()
asyncio.run(main())
"""
_NODE = """
fetch(process.argv[1])
  .then(response => { if (!response.ok) throw Error(response.status); return response.arrayBuffer() })
  .catch(error => { console.error(String(error.cause || error)); process.exit(1) })
"""
#: Command lines of well-known clients, keyed by name.
CLIENTS: Mapping[str, tuple[str, ...]] = {
    "curl": ("curl", "-fsSL", "-o", os.devnull, "{url}"),
    "wget": ("wget", "-q", "-O", os.devnull, "--ca-certificate={ca}", "{url}"),
    "urllib": (*_PYTHON, "import sys, urllib.request as u; u.urlopen(sys.argv[1]).read()", "{url}"),
    "requests": (*_PYTHON, "import sys, requests; requests.get(sys.argv[1]).raise_for_status()", "{url}"),
    "httpx": (
        *_PYTHON,
        "import sys, httpx; httpx.get(sys.argv[1], follow_redirects=True).raise_for_status()",
        "{url}",
    ),
    "aiohttp": (*_PYTHON, _AIOHTTP, "{url}"),
    "node": ("node", "-e", _NODE, "{url}"),
}

Reaction = Literal["accepted", "refused", "hung"]


class AuditError(Exception):
    """The client cannot be audited; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The reaction of a client to one trap."""

    trap: Trap
    reaction: Reaction
    #: Exit code of the client; None if it hung.
    code: int | None
    #: Time for which the client ran, in seconds.
    took: float
    #: Number of requests that reached the server.
    requests: int
    #: Time between the first and the second request in seconds; None without a second request.
    retried_after: float | None
    #: The most informative line that the client wrote to standard error.
    said: str

    @property
    def verdict(self) -> str:
        """The error in the client's reaction, in a few words; an empty string if the reaction is correct."""
        expected = self.trap.expected
        if self.reaction == "hung":
            return "keeps retrying" if self.requests > 1 else "hangs"
        if self.trap.retry_after and self.retried_after is not None and self.retried_after < self.trap.retry_after:
            return "ignores Retry-After"
        if expected == "refuse" and self.reaction == "accepted":
            return "wrongly accepts"
        if expected == "accept" and self.reaction == "refused":
            return "wrongly refuses"
        if expected == "refuse" and self.trap.identity and self.trap.group == "certificate" and self.requests:
            return "sends its request before it verifies"
        return ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON-compatible data."""
        trap = self.trap
        return {
            "trap": trap.name, "group": trap.group, "what": trap.what, "expected": trap.expected,
            "reaction": self.reaction, "verdict": self.verdict or "right", "exit_code": self.code,
            "seconds": round(self.took, 3), "requests": self.requests,
            "retried_after": None if self.retried_after is None else round(self.retried_after, 3), "said": self.said,
        }  # fmt: skip


async def audit(
    command: Sequence[str],
    traps: Sequence[Trap] = TRAPS,
    *,
    limit: float = LIMIT,
    jobs: int = JOBS,
    progress: Callable[[Finding], None] = lambda _: None,
) -> list[Finding]:
    """Run *command* once per trap; return the findings in the order of *traps*.

    Args:
        command: program with arguments; ``{url}`` in them stands for the URL, and ``{ca}`` for the path of a PEM file
            with the trusted root.  The environment variables of `TRUST_VARIABLES` also name that file.
        traps: traps to run.
        limit: time in seconds after which the client counts as hanging and is killed.
        jobs: number of clients that run concurrently.
        progress: called with each finding as soon as the client has ended.

    Raises:
        AuditError: the command has no ``{url}``, or its program does not exist.
        OSError: the traps cannot be started.
    """
    check(command)
    slots = asyncio.Semaphore(jobs)
    with tempfile.TemporaryDirectory(prefix="firstbyte-traps-") as name:
        folder = Path(name)

        async def one(stand: Stand) -> Finding:
            async with slots:
                found = await _run(command, stand, folder, limit)
            progress(found)
            return found

        async with zoo(traps, folder) as stands:
            return list(await asyncio.gather(*map(one, stands)))


def check(command: Sequence[str]) -> None:
    """Raise an error if *command* cannot be audited.

    Raises:
        AuditError: the command has no ``{url}``, or its program does not exist.
    """
    if not any("{url}" in word for word in command):
        raise AuditError("expected {url} in the command, where the client takes its URL")
    if shutil.which(command[0]) is None:
        raise AuditError(f"expected a program, got {command[0]!r}, which does not exist or cannot be executed")


async def _run(command: Sequence[str], stand: Stand, folder: Path, limit: float) -> Finding:
    root = str(folder / "root.pem")
    words = [word.replace("{url}", stand.url).replace("{ca}", root) for word in command]
    environment = {name: value for name, value in os.environ.items() if name not in PROXIES}
    environment |= dict.fromkeys(TRUST_VARIABLES, root)
    clock = asyncio.get_running_loop().time
    began = clock()
    with tempfile.TemporaryFile() as errors:  # not a pipe, which children of the client could keep open
        process = await asyncio.create_subprocess_exec(
            *words,
            env=environment,
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            async with asyncio.timeout(limit):
                await process.wait()
        except TimeoutError:
            reaction: Reaction = "hung"
        else:
            reaction = "refused" if process.returncode else "accepted"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the client, or children that it left behind
            await process.wait()
        errors.seek(0)
        said = errors.read(MAX_SAID)
    requests = stand.visit.requests
    return Finding(
        stand.trap,
        reaction,
        None if reaction == "hung" else process.returncode,
        clock() - began,
        len(requests),
        requests[1] - requests[0] if len(requests) > 1 else None,
        _message(said.decode(errors="replace")),
    )


def _message(said: str) -> str:
    """Return the most informative line of standard error: the last line of a Python traceback, otherwise the first."""
    lines = said.strip().splitlines() or [""]
    line = lines[-1 if lines[0].startswith("Traceback") else 0][:200]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
