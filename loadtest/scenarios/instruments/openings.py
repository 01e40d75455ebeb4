"""Opens connections at a fixed rate and keeps them open until a resource is exhausted (scenario `limits`)."""

import argparse
import asyncio
import errno
import json
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from linuxnet import counters
from linuxnet.source_ports import Source
from waterfall.churn import connect

#: Value of SO_LINGER with which close() resets a connection (socket(7)).
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Opening:
    """The outcome of one attempt to open a connection."""

    #: Start of the attempt in seconds since the first attempt.
    at: float
    #: Duration of connect() in seconds.
    took: float
    #: Name of the error, such as EMFILE; "" if the connection was opened.
    error: str = ""


async def open_all(to: tuple[str, int], rate: float, sources: Sequence[Source], timeout: float) -> list[Opening]:
    """Open connections at a fixed rate, keep them open until the last attempt is complete, then reset them.

    Args:
        to: IPv4 address and port of the server.
        rate: attempts per second.
        sources: source address and ports of each attempt.
        timeout: time-out of each attempt, in seconds.
    """
    opened: list[Opening] = []
    sockets = []

    async def attempt(at: float, source: Source) -> None:
        begun = time.monotonic()
        try:
            sock = await asyncio.wait_for(connect(to, source), timeout)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            opened.append(Opening(at, time.monotonic() - begun, name))
        else:
            opened.append(Opening(at, time.monotonic() - begun))
            sockets.append(sock)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, source in enumerate(sources):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))  # wait until the attempt is due
            group.create_task(attempt(time.monotonic() - began, source))
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # so that no port stays in TIME-WAIT
        sock.close()
    return sorted(opened, key=lambda each: each.at)


async def with_descriptors(to: tuple[str, int], rate: float, spare: int, count: int) -> tuple[list[Opening], int]:
    """Open connections in a child process that can open only *spare* more descriptors.

    Returns:
        The attempts, and the number of connections that the kernel started after the descriptors were exhausted.

    Raises:
        OSError: the process failed.
    """
    words = [sys.executable, "-m", "scenarios.instruments.openings", *map(str, (*to, rate, spare, count))]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        out, errors = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise ChildProcessError(errors.decode().strip().splitlines()[-1] if errors else "the process failed")
    found = json.loads(out)
    return [Opening(**each) for each in found["openings"]], found["begun"]


def raise_limit(needed: int) -> int:
    """Raise this process's descriptor limit to *needed*, or to the hard limit if that is lower; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, needed if hard == resource.RLIM_INFINITY else min(needed, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


async def _limited(to: tuple[str, int], rate: float, spare: int, count: int) -> dict[str, object]:
    # The list of open descriptors includes the descriptor that os.listdir() uses, hence the -1.
    limit = len(os.listdir("/proc/self/fd")) - 1 + spare  # noqa: PTH208 - os.listdir() uses exactly one descriptor
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    openings = await open_all(to, rate, [Source()] * count, 10.0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    begun = counters.protocols().get("Tcp.ActiveOpens", 0)
    return {"openings": [asdict(each) for each in openings], "begun": begun}


def main(argv: Sequence[str] | None = None) -> int:
    """Limit this process's descriptors, open connections, and print the attempts as JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="Open connections until the descriptors run out.")
    for name, kind in (("address", str), ("port", int), ("rate", float), ("spare", int), ("count", int)):
        parser.add_argument(name, type=kind)
    args = parser.parse_args(argv)
    before = counters.protocols().get("Tcp.ActiveOpens", 0)
    found = asyncio.run(_limited((args.address, args.port), args.rate, args.spare, args.count))
    begun = int(str(found["begun"])) - before
    print(json.dumps({**found, "begun": begun}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
