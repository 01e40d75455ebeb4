"""Merge the admin responses of several worker processes: metrics, health and fault switches.

No I/O: `telemetry.front` requests the responses from the workers and passes them in, keyed by worker number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from telemetry.metrics import Part


def metrics(pages: Mapping[int, Sequence[Part]]) -> str:
    """Return the text of ``GET /metrics`` for all workers; the `across` of each metric selects how it is merged."""
    table: dict[str, dict[str, float]] = {}
    for worker, page in pages.items():
        for part in page:
            row = table.setdefault(part["head"], {})
            for sample in part["samples"]:
                series, _, text = sample.rpartition(" ")
                value = int(text) if text.isdecimal() else float(text)
                if part["across"] == "worker":
                    row[_labelled(series, worker)] = value
                elif series not in row:
                    row[series] = value
                elif part["across"] == "sum":
                    row[series] += value
                else:
                    row[series] = (max if part["across"] == "max" else min)(row[series], value)
    return "".join(
        "\n".join([head, *(f"{series} {value!r}" for series, value in row.items()), ""]) for head, row in table.items()
    )


def _labelled(series: str, worker: int) -> str:
    label = f'worker="{worker}"}}'
    return f"{series[:-1]},{label}" if series.endswith("}") else f"{series}{{{label}"


def health(answers: Mapping[int, dict[str, Any] | str]) -> dict[str, Any]:
    """Return the body of ``GET /health`` for all workers; a check passes if it passes in every worker that reports it.

    Args:
        answers: the body of each worker's ``GET /health``, or the reason why the worker did not respond; keyed by
        worker number.
    """
    checks: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    service = ""
    for worker, answer in answers.items():
        if isinstance(answer, str):
            checks[f"worker {worker}"] = {"ok": False, "detail": answer}
            continue
        service = answer["service"]
        faults += [each for each in answer["faults"] if each not in faults]
        if not answer["checks"]:
            checks[f"worker {worker}"] = {"ok": False, "detail": "starting"}
        for name, check in answer["checks"].items():
            if not check["ok"] and checks.get(name, {"ok": True})["ok"]:
                checks[name] = {"ok": False, "detail": f"worker {worker}: {check['detail']}"}
            checks.setdefault(name, check)
    ok = bool(checks) and all(check["ok"] for check in checks.values())
    return {
        "service": service,
        "status": "ok" if ok else "failing",
        "checks": checks,
        "faults": faults,
        "workers": len(answers),
    }


def faults(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of ``GET /admin/faults`` for all workers: a fault is on if any worker has it on; hits add up."""
    merged: dict[str, Any] = {}
    for answer in answers:
        for name, fault in answer.items():
            before = merged.get(name)
            if before is None:
                merged[name] = dict(fault)
                continue
            if fault["on"] and not before["on"]:
                before |= {"on": True, "parameters": fault["parameters"]}
            before["hits"] += fault["hits"]
    return merged
