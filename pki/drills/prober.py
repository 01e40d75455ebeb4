"""An outside prober: OpenSSL's own client, with its own resolver and its own opinion about certificates.

Nothing of ours is in the path, so that a bug of ours cannot hide itself.
"""

import asyncio
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

#: Seconds between two looks, and for one.
EVERY, TIMEOUT = 0.5, 6.0
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
_VERIFY = re.compile(rb"verify error:num=\d+:([^\n]*)")
_ALERT = re.compile(rb"error:[0-9A-F]+:[^\n:]*:[^\n:]*:([^\n:]*)")


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look found."""

    #: Seconds on the run's time line, when the look began.
    at: float
    #: Empty when OpenSSL was content; else its words.
    error: str
    #: Of the certificate that was shown, lower-case hexadecimal; empty when none was.
    serial: str = ""
    #: Seconds since the epoch.
    not_before: float = 0.0
    not_after: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the handshake succeeded and the chain was verified."""
        return not self.error


class Prober:
    """Looks at one name from outside."""

    def __init__(self, name: str, trust: Path, port: int = 443, address: str = "") -> None:
        """Look at *name*, which has to lead to *trust*; at *address*, or wherever the system's resolver says it is."""
        self.name, self.trust, self.port, self.address = name, trust, port, address or name
        self.probes: list[Probe] = []

    @staticmethod
    def available() -> bool:
        """Return whether there is an ``openssl`` to ask."""
        return shutil.which("openssl") is not None

    async def look(self, now: Callable[[], float], at: float | None = None) -> Probe:
        """Connect once.

        Args:
            now: the run's clock.
            at: seconds since the epoch for which the chain is judged; None is the present.
        """
        began = now()
        command = ["openssl", "s_client", "-connect", f"{self.address}:{self.port}", "-servername", self.name,
                   "-CAfile", str(self.trust), "-verify_hostname", self.name, "-verify_return_error", "-showcerts"]  # fmt: skip
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
            process.kill()
            await process.wait()
            return Probe(began, f"no answer within {TIMEOUT:g} s")
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        return read(began, process.returncode or 0, output)

    async def run(self, now: Callable[[], float], stop: asyncio.Event) -> None:
        """Look again and again until *stop* is set."""
        while not stop.is_set():
            began = now()
            self.probes.append(await self.look(now))
            try:
                await asyncio.wait_for(stop.wait(), max(0.0, EVERY - (now() - began)))
            except TimeoutError:
                continue


def read(at: float, code: int, output: bytes) -> Probe:
    """Return what the output of ``openssl s_client -showcerts`` says."""
    error = ""
    if code or b"Verify return code: 0 (ok)" not in output:
        found = _VERIFY.search(output) or _ALERT.search(output)
        first = output.strip().splitlines()[0] if output.strip() else b"nothing"
        error = (found[1] if found else first).decode(errors="replace").strip()[:120]
        if b"Connection refused" in output:
            error = "connection refused"
    certificate = _PEM.search(output)
    if certificate is None:
        return Probe(at, error or "no certificate was shown")
    leaf = x509.load_pem_x509_certificate(certificate[0])
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return Probe(at, error, f"{leaf.serial_number:x}", begin, end)
