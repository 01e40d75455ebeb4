"""Updates keys within a TLS 1.3 connection (RFC 8446 section 4.6.3), with ``openssl s_client``.

Python's `ssl` cannot send a KeyUpdate.  ``openssl s_client`` can, and prints each message that it sends or receives.
"""

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scenarios.instruments.connection import Address

#: Seconds for which each step waits for the expected output before it fails.
TIMEOUT = 10.0
#: Lines that s_client prints with ``-msg`` for a KeyUpdate that it sends, and for one that it receives.
SENT, RECEIVED = b">>> TLS 1.3, Handshake [length 0005], KeyUpdate", b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate"
#: The input line that makes s_client update its own key and request the same of the server.
UPDATE_BOTH = b"K\n"


class KeyUpdateError(OSError):
    """The connection ended, or the server did not answer as expected."""


@dataclass(frozen=True, slots=True)
class Updated:
    """The key updates and requests on one connection."""

    #: Number of KeyUpdate messages that the client sent.
    sent: int
    #: Number of KeyUpdate messages that the server sent in answer.
    received: int
    #: Duration of each request in milliseconds; all requests but the first were sent right after a key update.
    requests_ms: tuple[float, ...]


def update_keys(to: Address, trust: Path, times: int) -> Updated:
    """Open a connection and send a request; then, *times* times, send a KeyUpdate and immediately another request.

    Raises:
        OSError: there is no openssl program.
        KeyUpdateError: the connection ended, or a response did not arrive within `TIMEOUT` seconds.
    """
    command = [
        "openssl", "s_client", "-connect", f"{to.address}:{to.port}", "-servername", to.host, "-tls1_3", "-msg",
        "-CAfile", str(trust), "-verify_return_error",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0, start_new_session=True
    )
    try:
        output = _Output(process)
        output.until(partial(_counts, b"Verify return code: 0", 1))
        requests = [output.request(to.host)]
        for number in range(times):
            output.send(UPDATE_BOTH)
            output.until(partial(_counts, SENT, number + 1))
            requests.append(output.request(to.host))
        output.until(partial(_counts, RECEIVED, times))
        return Updated(output.text.count(SENT), output.text.count(RECEIVED), tuple(requests))
    finally:
        process.kill()
        process.communicate()


class _Output:
    """The output of s_client so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018, S101 - for mypy: both are pipes
        self._stdin, self._stdout = process.stdin, process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self.text = b""

    def send(self, line: bytes) -> None:
        """Write to s_client's input, which it reads immediately if the effect of the previous call has been awaited."""
        try:
            self._stdin.write(line)
        except BrokenPipeError:
            raise KeyUpdateError(f"s_client: the connection ended: {self.text[-300:]!r}") from None

    def request(self, host: str) -> float:
        """Send a GET request; return the milliseconds until the response began."""
        due = self.text.count(b"HTTP/1.1 200") + 1
        began = time.perf_counter()
        self.send(f"GET /whoami HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self.until(partial(_counts, b"HTTP/1.1 200", due))
        return (time.perf_counter() - began) * 1000

    def until(self, reached: Callable[[bytes], bool]) -> None:
        """Read until *reached* returns True for the output so far; raise `KeyUpdateError` after `TIMEOUT` seconds."""
        due = time.monotonic() + TIMEOUT
        while not reached(self.text):
            if not self._selector.select(max(0.0, due - time.monotonic())):
                raise KeyUpdateError(f"s_client: no expected output for {TIMEOUT:g} s, got {self.text[-300:]!r}")
            if not (data := os.read(self._stdout.fileno(), 1 << 16)):
                raise KeyUpdateError(f"s_client: the connection ended: {self.text[-300:]!r}")
            self.text += data


def _counts(word: bytes, least: int, text: bytes) -> bool:
    return text.count(word) >= least
