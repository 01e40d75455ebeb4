"""A result: what was predicted, measured, concluded; written as ``result.json`` and ``report.html``."""

import datetime as dt
import json
import platform
import ssl
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Verdict(StrEnum):
    """How an experiment ended."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INVALID = "invalid"
    SKIPPED = "skipped"

    @property
    def exit_code(self) -> int:
        """What the command line returns (DESIGN, "Command line")."""
        return {"pass": 0, "skipped": 0, "fail": 1, "invalid": 4}[self.value]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at *at* seconds."""

    at: float
    #: injection, observation, alarm or phase.
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the verdict, or of validity."""

    name: str
    expected: str
    got: str
    ok: bool


@dataclass(slots=True)
class Result:
    """Everything about one run."""

    name: str
    claim: str
    parameters: dict[str, Any]
    prediction: dict[str, Any] = field(default_factory=dict)
    measurement: dict[str, Any] = field(default_factory=dict)
    validity: list[Check] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: Why there is no verdict; empty otherwise.
    skipped: str = ""
    interrupted: str = ""

    @property
    def verdict(self) -> Verdict:
        """Conclude: an invalid measurement proves nothing, in either direction."""
        if self.skipped:
            return Verdict.SKIPPED
        if self.interrupted or not all(each.ok for each in self.validity) or not self.checks:
            return Verdict.INVALID
        return Verdict.PASS if all(each.ok for each in self.checks) else Verdict.FAIL

    @property
    def reasons(self) -> list[str]:
        """Say in words what did not hold."""
        if self.skipped or self.interrupted:
            return [self.skipped or self.interrupted]
        return [f"{c.name}: expected {c.expected}, got {c.got}" for c in (*self.validity, *self.checks) if not c.ok]

    def as_json(self) -> dict[str, Any]:
        """Return the body of ``result.json``."""
        return {
            "name": self.name,
            "claim": self.claim,
            "verdict": self.verdict.value,
            "reasons": self.reasons,
            "parameters": self.parameters,
            "prediction": self.prediction,
            "measurement": self.measurement,
            "validity": [asdict(each) for each in self.validity],
            "checks": [asdict(each) for each in self.checks],
            "events": [asdict(each) for each in self.events],
            "manifest": manifest(),
        }


def manifest() -> dict[str, Any]:
    """Return what somebody needs to know to repeat this run."""
    sysctls = {}
    for name in (
        "ipv4/tcp_congestion_control",
        "ipv4/tcp_tw_reuse",
        "ipv4/ip_local_port_range",
        "ipv4/tcp_fin_timeout",
    ):
        path = Path("/proc/sys/net") / name
        if path.exists():
            sysctls[name.replace("/", ".")] = path.read_text(encoding="ascii").strip()
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "firstbyte": version("firstbyte"),
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "sysctls": sysctls,
    }


def write(result: Result, report: str, into: Path) -> Path:
    """Write ``result.json`` and ``report.html`` below *into*/<name>/<UTC time>/; return the folder."""
    folder = into / result.name / dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(report, encoding="utf-8")
    return folder
