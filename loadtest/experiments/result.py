"""The result of a run: predictions, measurements, checks and verdict, and the manifest needed to repeat the run."""

import datetime as dt
import math
import os
import platform
import ssl
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.estimate import Estimate

#: Kernel settings below ``net.ipv4`` that affect measurements and are therefore part of the manifest.
SYSCTLS = (
    "tcp_congestion_control", "tcp_tw_reuse", "ip_local_port_range", "tcp_fin_timeout", "tcp_no_metrics_save",
    "tcp_slow_start_after_idle", "tcp_max_tw_buckets", "tcp_syn_linear_timeouts", "tcp_timestamps",
    "tcp_rmem", "tcp_wmem",
)  # fmt: skip


class Verdict(StrEnum):
    """Verdict of an experiment."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INVALID = "invalid"
    SKIPPED = "skipped"

    @property
    def exit_code(self) -> int:
        """Exit code of the command line for this verdict."""
        return {"pass": 0, "skipped": 0, "fail": 1, "invalid": 4}[self.value]


def headline(verdict: str, *, control: bool) -> str:
    """Return the verdict as text for a headline; for a negative *control*, "fail" is the desired verdict."""
    if control:
        verdict = {"pass": "control passed: proves nothing", "fail": "control failed as it must"}.get(verdict, verdict)
    return {"invalid": "invalid: proves nothing"}.get(verdict, verdict)


def tone(verdict: str, *, control: bool) -> str:
    """Return the verdict whose colour the report uses: pass and fail are swapped for a negative *control*."""
    return {"pass": "fail", "fail": "pass"}.get(verdict, verdict) if control else verdict


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a run."""

    #: Time of the event, in seconds since the run began.
    at: float
    #: Type of the event: injection, undone, observation, alarm or phase.
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that decides the verdict, or a validity gate."""

    name: str
    expected: str
    got: str
    ok: bool
    #: The compared number; over several repeats, its median is checked.  None: the check compares no number.
    value: float | None = None
    #: Smallest number that passes; None: no lower bound.
    low: float | None = None
    #: Largest number that passes; None: no upper bound.
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the check's entry in ``result.json``."""
        words = {"name": self.name, "expected": self.expected, "got": self.got, "ok": self.ok}
        if self.value is None:
            return words
        return {**words, "value": _number(self.value), "low": _number(self.low), "high": _number(self.high)}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A predicted value with its unit."""

    value: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity with its predicted and its measured value."""

    name: str
    unit: str
    predicted: float | None
    measured: Estimate

    @property
    def residual(self) -> float | None:
        """Measured minus predicted value; None if there is no prediction."""
        return None if self.predicted is None else self.measured.value - self.predicted


@dataclass(slots=True)
class Result:
    """Settings, predictions, measurements, checks and events of one run."""

    name: str
    claim: str
    parameters: dict[str, Any]
    quick: bool = False
    #: In a negative control, the mechanism that was switched off; otherwise "".
    control: str = ""
    #: Names of checks; in a negative control, at least one of them must fail.
    control_fails: tuple[str, ...] = ()
    seed: int = 0
    prediction: dict[str, Quantity] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    #: Measured values without a prediction, keyed by name.
    facts: dict[str, Any] = field(default_factory=dict)
    validity: list[Check] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: Parts of the experiment that were omitted on this machine, each with the reason.
    left_out: list[str] = field(default_factory=list)
    #: Reason why this machine cannot run the experiment; "" if it can.
    skipped: str = ""
    #: Reason why the run is incomplete; "" if it is complete.
    interrupted: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Return the verdict; a negative control that fails only checks outside `control_fails` is invalid."""
        if self.skipped:
            return Verdict.SKIPPED
        if self.interrupted or not all(each.ok for each in self.validity) or not self.checks:
            return Verdict.INVALID
        failed = {each.name for each in self.checks if not each.ok}
        if failed and self.control and self.control_fails and not failed & set(self.control_fails):
            return Verdict.INVALID
        return Verdict.FAIL if failed else Verdict.PASS

    @property
    def reasons(self) -> list[str]:
        """Return one line for each reason why the verdict is not "pass"; empty if it is."""
        if self.skipped or self.interrupted:
            return [self.skipped or self.interrupted]
        said = [f"{c.name}: expected {c.expected}, got {c.got}" for c in (*self.validity, *self.checks) if not c.ok]
        if self.verdict is Verdict.INVALID and all(c.ok for c in self.validity):
            said.append(
                f"the control failed, but not where it should: expected {' or '.join(self.control_fails)}"
                if self.checks
                else "nothing was checked"
            )
        return said

    def as_json(self) -> dict[str, Any]:
        """Return the body of ``result.json``."""
        return {
            "name": self.name,
            "claim": self.claim,
            "verdict": self.verdict.value,
            "reasons": self.reasons,
            "quick": self.quick,
            "control": self.control,
            "seed": self.seed,
            "parameters": self.parameters,
            "prediction": {name: _number(each.value) for name, each in self.prediction.items()},
            "measurement": {row.name: _number(row.measured.value) for row in self.rows} | self.facts,
            "interval": {row.name: [_number(row.measured.low), _number(row.measured.high)] for row in self.rows},
            "residual": {row.name: _number(row.residual) for row in self.rows if row.residual is not None},
            "unit": {row.name: row.unit for row in self.rows},
            "validity": [each.as_json() for each in self.validity],
            "checks": [each.as_json() for each in self.checks],
            "events": [asdict(each) for each in self.events],
            "left_out": self.left_out,
            "manifest": self.manifest,
        }


def manifest() -> dict[str, Any]:
    """Return the time, software versions, machine properties and kernel settings that are needed to repeat a run."""
    sysctls = {}
    for name in SYSCTLS:
        path = Path("/proc/sys/net/ipv4") / name
        if path.exists():
            sysctls[f"net.ipv4.{name}"] = " ".join(path.read_text(encoding="ascii").split())
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "firstbyte": version("firstbyte"),
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "sysctls": sysctls,
    }


def _number(value: float | None) -> float | None:
    """Round a number to six decimals for JSON; NaN and infinity become None, because JSON cannot represent them."""
    return None if value is None or math.isnan(value) or math.isinf(value) else round(value, 6)
