"""Costs that depend on the machine: CPU time of TLS, measured here and cached.

The measurements run both ends of TLS in memory, like the scenario `handshake`.
"""

import datetime as dt
import json
import os
import platform
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hostfiles.atomic import atomic_write
from planner.inputs import Key, Tls
from planner.quantities import Range
from scenarios.instruments.memory_handshake import KEYS, Ends
from wireformat.tls import TlsConnection

#: Number of batches per measurement, and number of handshakes per batch.  The interval of a cost spans the medians of
#: all batches.
BATCHES, HANDSHAKES = 5, 20
#: Number of bytes encrypted in each batch.
BYTES = 1 << 22
#: Duration of TIME-WAIT on Linux, in seconds: the kernel's timer wheel adds up to 4 s to the nominal 60 s
#: (`theory.time_wait.timer_step`).
WAIT = Range(60.0, 64.0)
_KEYS: dict[Key, str] = {"ecdsa": KEYS[0], "rsa": KEYS[1]}


class CalibrationError(Exception):
    """The measured costs cannot be cached."""


@dataclass(frozen=True, slots=True)
class Costs:
    """One value for each cost, in seconds."""

    #: CPU time of a server for one full handshake.
    full: float
    #: CPU time of a server for one resumed handshake.
    resumed: float
    #: CPU time to encrypt one byte.
    per_byte: float
    #: Duration of TIME-WAIT.
    wait: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured costs with their intervals, and the machine and time of the measurement."""

    machine: str
    measured: str
    #: CPU seconds of a server, keyed by ``VERSION KEY full|resumed``, for example ``1.3 ecdsa full``.
    handshakes: dict[str, Range]
    #: CPU seconds to encrypt one byte.
    per_byte: Range

    def costs(self, tls: Tls, key: Key) -> dict[str, Range]:
        """Return the range of each field of `Costs` for one TLS version and key type."""
        zero = Range(0.0, 0.0)
        full, resumed = (self.handshakes.get(f"{tls} {key} {kind}", zero) for kind in ("full", "resumed"))
        return {"full": full, "resumed": resumed, "per_byte": self.per_byte, "wait": WAIT}

    def to_json(self) -> str:
        """Return the calibration as JSON text."""
        handshakes = {name: [each.low, each.high] for name, each in self.handshakes.items()}
        fields = {"machine": self.machine, "measured": self.measured, "handshakes": handshakes}
        return json.dumps({**fields, "per_byte": [self.per_byte.low, self.per_byte.high]}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Parse what `to_json` returned.

        Raises:
            ValueError: *text* is not a calibration.
        """
        try:
            fields = json.loads(text)
            handshakes = {str(name): Range(*map(float, ends)) for name, ends in fields["handshakes"].items()}
            return cls(
                str(fields["machine"]), str(fields["measured"]), handshakes, Range(*map(float, fields["per_byte"]))
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"expected a calibration, got {error!r}") from None


def machine() -> str:
    """Return the processor's name and the versions of Python and OpenSSL, on which the costs depend."""
    return f"{_processor()}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"


def calibrate() -> Calibration:
    """Measure all costs on one core; this takes two to three seconds."""
    versions: tuple[Tls, ...] = ("1.3", "1.2")
    ends = {f"{tls} {key}": Ends(name, f"TLSv{tls}") for tls in versions for key, name in _KEYS.items()}
    batches: dict[str, list[float]] = {}
    bytes_: list[float] = []
    for _ in range(BATCHES):  # measure all kinds in turn, because the speed of a shared core changes within seconds
        for name, pair in ends.items():
            for kind in ("full", "resumed"):
                cost = pair.cost(HANDSHAKES, resumed=kind == "resumed")
                batches.setdefault(f"{name} {kind}", []).append(cost.server_ms / 1000)
        bytes_.append(_per_byte(ends["1.3 ecdsa"]))
    found = {name: Range(min(each), max(each)) for name, each in batches.items()}
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Calibration(machine(), now, found, Range(min(bytes_), max(bytes_)))


def load_or_calibrate(path: Path | None = None, *, anew: bool = False) -> tuple[Calibration, bool]:
    """Return the calibration of this machine, and whether it was newly measured (true) or read from the cache (false).

    Raises:
        CalibrationError: the new calibration cannot be stored.
    """
    path = path or cache()
    if not anew:
        try:
            found = Calibration.from_json(path.read_text())
        except (OSError, ValueError):  # missing or unreadable: measure again
            pass
        else:
            if found.machine == machine():
                return found, False
    found = calibrate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, found.to_json().encode())
    except OSError as error:
        raise CalibrationError(f"cannot store the calibration in {path}: {error.strerror or error}") from None
    return found, True


def cache() -> Path:
    """Return the path of the cached calibration (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "firstbyte", "calibration.json")


def _per_byte(ends: Ends) -> float:
    """Return the CPU time in seconds to encrypt one byte in records of 16 KiB."""
    return median(_encrypting(ends.connect()[1]))


def _encrypting(server: TlsConnection) -> Iterator[float]:
    record = bytes(16_384)
    for _ in range(5):
        began = time.thread_time()
        for _ in range(BYTES // 5 // len(record)):
            server.write(record)
            server.to_send()
        yield (time.thread_time() - began) / (BYTES // 5 // len(record) * len(record))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
