"""Runs the subject's program as a child process; records how the program ended and its last line of output."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Seconds between SIGTERM and SIGKILL; less than the host's own grace period.
GRACE = 3.0
#: Time for which the output is still read after the program has ended, in seconds.  The pipe may stay open for longer,
#: if the program has left a daemon behind.
LAST_WORDS = 0.5
#: Variables with this prefix configure lab services, such as the observer, and are not passed on.
PREFIX = "FIRSTBYTE_"


class Program:
    """One run of a command; its output is copied to this process's standard output."""

    def __init__(self, command: Sequence[str], directory: Path | None = None) -> None:
        self.command, self.directory = tuple(command), directory
        #: Exit code, or minus the signal number; None while the program runs.
        self.exit_code: int | None = None
        #: The last line that the program printed; "" before the first line.
        self.last = ""
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "running" if self.exit_code is None else f"exit code {self.exit_code}"
        return f"<Program {self.command[0]} {state}>"

    async def start(self) -> None:
        """Start the program in a process group of its own; raise `OSError` if there is no such program."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        read, write = os.pipe()
        try:  # with asyncio's own pipe, `wait` would also wait for daemons that the program has left behind
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
            )
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        output = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read, "rb", 0)
        )
        copying = asyncio.create_task(self._copy(output))
        self._tasks = [copying, asyncio.create_task(self._wait(self._process, copying))]

    async def stop(self) -> None:
        """Send SIGTERM to the program and its children, and SIGKILL after `GRACE` seconds; wait for the end."""
        if self._process is None:
            return
        for number, limit in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), limit)
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait(self, process: asyncio.subprocess.Process, copying: asyncio.Task[None]) -> None:
        code = await process.wait()
        await asyncio.wait({copying}, timeout=LAST_WORDS)
        self.exit_code = code

    async def _copy(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while data := await output.read(65536):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            *lines, rest = (rest[-4096:] + data).split(b"\n")
            for line in filter(None, map(bytes.strip, lines)):
                self.last = line.decode(errors="replace")[:200]
