"""Admin pages of an edge with several worker processes."""

from collections.abc import Sequence
from typing import Any

#: Fields of a row that are counts, and are summed over the workers.
COUNTS = ("idle", "active", "opened", "reused", "failed", "waiting")


def merged_pools(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ``GET /admin/pool`` for all workers: a target is ejected if it is in one of them."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for answer in answers:
        for row in answer["upstreams"]:
            before = rows.setdefault((row["route"], row["name"]), {**row, **dict.fromkeys(COUNTS, 0)})
            for count in COUNTS:
                before[count] += row[count]
            before["ejected"] = before["ejected"] or row["ejected"]
            before["address"] = before["address"] or row["address"]
    return {"upstreams": list(rows.values())}


def merged_purges(answers: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return ``POST /admin/pool/purge`` for all workers."""
    return {"closed": sum(answer["closed"] for answer in answers)}
