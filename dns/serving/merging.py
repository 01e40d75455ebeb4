"""Merge the admin responses of a DNS server's worker processes into one response (`telemetry.front`)."""

from collections.abc import Sequence
from typing import Any


def newest_first(answers: Sequence[Any]) -> Any:
    """Return the log entries of all workers, newest first."""
    return sorted((entry for answer in answers for entry in answer), key=lambda entry: -float(entry["time"]))


def caches(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the entries of all workers' caches, and the sums of their counters."""
    entries = [entry for answer in answers for entry in answer["entries"]]
    return {"entries": entries, **{key: sum(each[key] for each in answers) for key in ("size", "hits", "misses")}}


def flushed(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the total number of entries removed by all workers."""
    return {"flushed": sum(answer["flushed"] for answer in answers)}
