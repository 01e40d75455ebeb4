"""Measures CPU time per byte of TLS 1.3 by cipher suite, in memory, with or without the CPU's AES instructions.

OpenSSL reads the cipher suite (from its configuration) and the CPU features to hide (from an environment variable) only
when a process starts.  So each `Arm` has its own process, which runs this module and accepts these requests:

        bulk BYTES         take the measurements in `Bulk`
        connection BYTES   measure a handshake and the transfer that follows, in CPU seconds of client plus server
"""

import os
import platform
import re
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scenarios.instruments.memory_handshake import Ends
from wireformat.tls import MAX_RECORD, TlsConnection

#: Bytes that are encrypted in one call.  They fit into the second-level cache and malloc's heap, so that the measured
#: time includes no page faults.
BLOCK = 1 << 16
#: For measuring the time per record: bytes in each short record, and number of short records per call of `to_send`.
SHORT, BATCH = 64, 1024
#: By machine type, the environment variable and the value that hide CPU features from OpenSSL (man OPENSSL_ia32cap):
#: on x86, PCLMULQDQ (bit 33) and AES-NI (bit 57), which also disables the faster VAES code; on ARM, all features.
HIDING = {
    "x86_64": ("OPENSSL_ia32cap", "~0x200000200000000"), "AMD64": ("OPENSSL_ia32cap", "~0x200000200000000"),
    "aarch64": ("OPENSSL_armcap", "0"), "arm64": ("OPENSSL_armcap", "0"),
}  # fmt: skip
_SUITE_FILE = """openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = suites
[suites]
Ciphersuites = {suite}
"""


class CipherError(OSError):
    """A measuring process ended early, or `openssl speed` printed unexpected output."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant to measure: a cipher suite, and whether OpenSSL may use the CPU's instructions for it."""

    name: str
    #: TLS 1.3 cipher suite (RFC 8446 section B.4).
    suite: str
    #: Name of the cipher for ``openssl speed -evp``.
    cipher: str
    #: Whether the CPU's cryptographic instructions are hidden from OpenSSL.
    hidden: bool = False

    def environment(self, suite_file: Path) -> dict[str, str]:
        """Return the environment of this arm's processes; write OpenSSL's configuration to *suite_file*."""
        suite_file.write_text(_SUITE_FILE.format(suite=self.suite), encoding="ascii")
        variables = {name: value for name, value in os.environ.items() if name not in {v for v, _ in HIDING.values()}}
        variables["OPENSSL_CONF"] = str(suite_file)
        if self.hidden:
            name, value = HIDING[platform.machine()]
            variables[name] = value
        return variables


@dataclass(frozen=True, slots=True)
class Bulk:
    """CPU times that a worker measured in one round, in seconds."""

    #: Encryption of one byte, in records of 16 KiB.
    encrypt: float
    #: Decryption of one byte, in records of 16 KiB.
    decrypt: float
    #: Copying one byte into and out of OpenSSL's memory as a sender does, without encryption.
    sending: float
    #: Copying one byte into and out of OpenSSL's memory as a receiver does, without decryption.
    receiving: float
    #: Encryption of one record of `SHORT` bytes, without copying it; most of the time is for nonce, header and tag.
    record: float


class Worker:
    """A process that measures one arm; use it as a context manager."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        with tempfile.TemporaryDirectory() as folder:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main()"],
                env=arm.environment(Path(folder, "openssl.cnf")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                start_new_session=True,  # Ctrl-C interrupts only the experiment, which then ends this process
            )
            #: The cipher suite that the handshake negotiated.
            self.suite = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bulk(self, size: int) -> Bulk:
        """Return the CPU times of encrypting, decrypting and copying *size* bytes, and of encrypting short records."""
        return Bulk(*self._ask(f"bulk {size}"))

    def connection(self, size: int) -> tuple[float, float]:
        """Return the CPU times of a handshake and of a transfer of *size* bytes, in seconds, as sums of both ends."""
        handshake, transfer = self._ask(f"connection {size}")
        return handshake, transfer

    def close(self) -> None:
        """End the measuring process, even during a measurement."""
        self._process.kill()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, command: str) -> list[float]:
        assert self._process.stdin is not None  # noqa: S101 - for mypy: the constructor creates this pipe
        self._process.stdin.write(command + "\n")
        return [float(word) for word in self._line().split()]

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - for mypy: the constructor creates this pipe
        if not (line := self._process.stdout.readline()):
            self.close()
            raise CipherError(f"the process that measures {self.arm.name} ended with code {self._process.returncode}")
        return line.strip()


def openssl_speed(arm: Arm, seconds: int = 1) -> float:
    """Return the CPU seconds per byte of the arm's cipher alone, as ``openssl speed`` measures it on 16 KiB blocks.

    Raises:
        OSError: there is no openssl program.
        CipherError: the output of openssl contains no throughput.
    """
    command = ["openssl", "speed", "-seconds", str(seconds), "-bytes", str(MAX_RECORD), "-evp", arm.cipher]
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            command, env=arm.environment(Path(folder, "openssl.cnf")), capture_output=True, text=True, check=False
        )
    if not (found := re.search(r"^\S+ +([\d.]+)k$", made.stdout, re.MULTILINE)):
        raise CipherError(f"expected a line with thousands of bytes per second of `{' '.join(command)}`, "
                          f"got {made.stdout[-200:]!r} {made.stderr[-200:]!r}")  # fmt: skip
    return 1 / (1000 * float(found[1]))


# --- the measuring process --------------------------------------------------------------------------------------------


def _transfer(client: TlsConnection, server: TlsConnection, size: int) -> tuple[float, float]:
    """Send *size* bytes from server to client; return the CPU seconds of encryption and of decryption."""
    block = bytes(BLOCK)
    encrypt = decrypt = 0.0
    for begin in range(0, size, BLOCK):
        part = block[: size - begin]
        began = time.thread_time()
        server.write(part)
        records = server.to_send()
        middle = time.thread_time()
        client.receive(records)
        left = len(part)
        while left:
            left -= len(client.read() or b"")
        encrypt += middle - began
        decrypt += time.thread_time() - middle
    return encrypt, decrypt


def _move(size: int) -> tuple[float, float]:
    """Copy *size* bytes through OpenSSL's memory, unencrypted, in whole records; return CPU seconds per direction."""
    block, memory = bytes(MAX_RECORD), ssl.MemoryBIO()
    pieces = BLOCK // MAX_RECORD
    sending = receiving = 0.0
    for _ in range(size // BLOCK):
        began = time.thread_time()
        for _ in range(pieces):
            memory.write(block)
        whole = memory.read()
        middle = time.thread_time()
        memory.write(whole)
        for _ in range(pieces):
            memory.read(MAX_RECORD)
        sending += middle - began
        receiving += time.thread_time() - middle
    return sending, receiving


def _short_records(server: TlsConnection, client: TlsConnection) -> float:
    """Return the CPU seconds to encrypt one record of `SHORT` bytes, excluding the time to copy it."""
    data, memory = bytes(SHORT), ssl.MemoryBIO()
    began = time.thread_time()
    for _ in range(BATCH):
        server.write(data)
    records = server.to_send()
    middle = time.thread_time()
    for _ in range(BATCH):
        memory.write(data)
    memory.read()
    moved = time.thread_time() - middle
    client.receive(records)
    for _ in range(BATCH):
        client.read()
    return (middle - began - moved) / BATCH


def main() -> None:
    """Perform the measurements requested on standard input until it is closed."""
    ends = Ends("ECDSA P-256", "TLSv1.3")
    client, server = ends.connect()
    print((client.object.cipher() or ("none",))[0], flush=True)
    for line in sys.stdin:
        command, size = line.split()
        if command == "bulk":
            per_byte = [each / int(size) for each in (*_transfer(client, server, int(size)), *_move(int(size)))]
            print(*per_byte, _short_records(server, client), flush=True)
        else:
            began = time.thread_time()
            pair = ends.connect()
            middle = time.thread_time()
            _transfer(*pair, int(size))
            print(middle - began, time.thread_time() - middle, flush=True)
