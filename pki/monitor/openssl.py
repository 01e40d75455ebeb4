"""The outside prober: ``openssl s_client``, which resolves names and verifies certificates by itself.

It shares no code with firstbyte, so that a bug in firstbyte's TLS code cannot hide a failure.
"""

import asyncio
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

#: Interval between probes, and time-out of a probe, in seconds.
EVERY, TIMEOUT = 0.5, 6.0
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
_VERIFY = re.compile(rb"verify error:num=\d+:([^\n]*)")
_ALERT = re.compile(rb"error:[0-9A-F]+:[^\n:]*:[^\n:]*:([^\n:]*)")


@dataclass(frozen=True, slots=True)
class Probe:
    """Result of one connection of the outside prober."""

    #: Start of the connection, in seconds on the run's timeline.
    at: float
    #: OpenSSL's reason for rejecting the certificate, or the connection error; "" if the certificate was accepted.
    error: str
    #: Serial number of the received certificate, in lower-case hexadecimal; "" if none was received.
    serial: str = ""
    #: Start of the received certificate's validity, in seconds since the epoch.
    not_before: float = 0.0
    #: Expiry of the received certificate, in seconds since the epoch.
    not_after: float = 0.0
    #: The certificates that the server sent, leaf first.
    chain: tuple[x509.Certificate, ...] = field(default=(), compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the handshake succeeded and the chain was verified."""
        return not self.error


class Prober:
    """Connects to one TLS server with ``openssl s_client``, and records the results."""

    def __init__(self, name: str, trust: Path | None, port: int = 443, address: str = "") -> None:
        """Prepare probes of a server.

        Args:
            name: host name, which the server's certificate must have.
            trust: PEM file with the trusted roots; None selects the system's roots.
            port: TCP port of the server.
            address: IP address of the server; by default, the system's resolver resolves *name*.
        """
        self.name, self.trust, self.port, self.address = name, trust, port, address or name
        self.probes: list[Probe] = []

    @staticmethod
    def available() -> bool:
        """Return whether ``openssl`` is installed."""
        return shutil.which("openssl") is not None

    async def look(self, now: Callable[[], float], at: float | None = None) -> Probe:
        """Connect once, and return the result.

        Args:
            now: returns the time on the run's timeline, in seconds.
            at: time at which the chain is verified, in seconds since the epoch; None means the current time.
        """
        began = now()
        trust = [] if self.trust is None else ["-CAfile", str(self.trust)]
        command = ["openssl", "s_client", "-connect", f"{self.address}:{self.port}", "-servername", self.name,
                   *trust, "-verify_hostname", self.name, "-verify_return_error", "-showcerts"]  # fmt: skip
        if at is not None:
            command += ["-attime", str(int(at))]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
        except TimeoutError:
            return Probe(began, f"no answer within {TIMEOUT:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return read(began, process.returncode or 0, output)

    async def run(self, now: Callable[[], float], stop: asyncio.Event) -> None:
        """Probe the server every `EVERY` seconds until *stop* is set; append the results to `probes`."""
        while not stop.is_set():
            began = now()
            self.probes.append(await self.look(now))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, EVERY - (now() - began)))


def read(at: float, code: int, output: bytes) -> Probe:
    """Parse the output of ``openssl s_client -showcerts``.

    Args:
        at: start of the probe, in seconds on the run's timeline.
        code: exit code of the command.
        output: its combined standard output and standard error.
    """
    error = ""
    if code or b"Verify return code: 0 (ok)" not in output:
        found = _VERIFY.search(output) or _ALERT.search(output)
        first = output.strip().splitlines()[0] if output.strip() else b"nothing"
        error = (found[1] if found else first).decode(errors="replace").strip()[:120]
        if b"Connection refused" in output:
            error = "connection refused"
    chain = tuple(map(x509.load_pem_x509_certificate, _PEM.findall(output)))
    if not chain:
        return Probe(at, error or "no certificate was received")
    begin, end = chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp()
    return Probe(at, error, f"{chain[0].serial_number:x}", begin, end, chain)
