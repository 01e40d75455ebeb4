"""Merge functions for the admin responses of an edge with several worker processes."""

from collections.abc import Sequence
from typing import Any

#: Fields of a pool row that are summed over all workers.
COUNTS = ("idle", "active", "opened", "reused", "failed", "waiting")


def merged_pools(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge responses of ``GET /admin/pool``; a target is ejected or unhealthy if at least one worker reports it."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for answer in answers:
        for row in answer["upstreams"]:
            before = rows.setdefault((row["route"], row["name"]), {**row, **dict.fromkeys(COUNTS, 0)})
            for count in COUNTS:
                before[count] += row[count]
            before["ejected"] = before["ejected"] or row["ejected"]
            before["healthy"] = before["healthy"] and row["healthy"]
            before["address"] = before["address"] or row["address"]
    return {"upstreams": list(rows.values())}


def merged_purges(answers: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Merge responses of ``POST /admin/pool/purge``."""
    return {"closed": sum(answer["closed"] for answer in answers)}
