"""Origins in separate processes, so that tests can kill them."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from telemetry.call import call

TOKEN = "token-of-this-test"


class Process:
    """An origin in a separate process."""

    def __init__(self, process: subprocess.Popen[str], port: int, admin: int) -> None:
        self.process, self.port, self.admin = process, port, admin

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the origin's admin port; return the response's JSON."""
        return call(f"http://127.0.0.1:{self.admin}", method, path, body, token=TOKEN)


@contextlib.contextmanager
def running(folder: Path, name: str, *arguments: str) -> Iterator[Process]:
    """Run ``python -m origin`` with its database in *folder*; kill it at the end."""
    token = folder / "token"
    token.write_text(TOKEN)
    command = [
        sys.executable, "-m", "origin", "--name", name, "--kind", "catalog", "--plain", "127.0.0.1:0",
        "--admin", "127.0.0.1:0", "--token-file", str(token), "--database", str(folder / "catalog.sqlite"),
        "--note-keys", str(folder / "keys.json"), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        ports = dict(re.findall(r":(\d+) \((\w+)\)", process.stdout.readline() + process.stdout.readline()))
        by_name = {name: int(port) for port, name in ports.items()}
        try:
            yield Process(process, by_name["plain"], by_name["admin"])
        finally:
            process.kill()
