"""``firstbyte link``: list the links between regions, or change one while the lab is running."""

import argparse
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from firstbyte import terminal, where
from firstbyte.arguments import CORRUPTIONS
from runtime import RefusedError, UsageError

#: Text that the list of links shows for each link setting.
WORDS = {
    "rtt_ms": "round trip {:g} ms",
    "jitter_ms": "jitter {:g} ms",
    "loss": "loss {:.3%}",
    "rate_bps": "rate {:,.0f} bit/s",
    "duplicate": "{:.3%} arrive twice",
    "reorder": "{:.3%} held back",
    "reorder_ms": "by {:g} ms",
    **{f"corrupt_{mode}": f"{{:.3%}} damaged by {mode}" for mode in CORRUPTIONS},
    "corrupt_k": "with k = {:d}",
}
#: Link settings that share one column of the table.
RARE = ("duplicate", "reorder", *(f"corrupt_{mode}" for mode in CORRUPTIONS))
#: Command-line option (without dashes) for each link setting.
OPTIONS = {
    "rtt_ms": "rtt",
    "jitter_ms": "jitter",
    "loss": "loss",
    "rate_bps": "rate",
    "duplicate": "duplicate",
    "reorder": "reorder",
    "reorder_ms": "reorder_by",
}


class UnknownRegionError(RefusedError):
    """The region does not exist."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"expected a region among {', '.join(known)}, got {name!r}")
        self.name, self.known = name, known


def link(args: argparse.Namespace) -> int:
    """List all links, or change or reset one."""
    changes = {key: value for key, name in OPTIONS.items() if (value := getattr(args, name)) is not None}
    for each in args.corrupt or ():
        changes.update(each)
    if args.between is None and (changes or args.reset or args.one_way):
        raise UsageError("expected REGION:REGION before settings, got none")
    if args.reset and changes:
        raise UsageError("expected --reset alone, got settings as well")
    with where.lab() as lab:
        links = lab.call("wan", "GET", "/admin/links")
        if args.between is None:
            return _show(links, as_json=args.json)
        for name in args.between:
            if name not in links["regions"]:
                raise UnknownRegionError(name, list(links["regions"]))
        a, b = args.between
        path = f"/admin/links/{quote(a)}/{quote(b)}{'?direction=one' if args.one_way else ''}"
        if args.reset:
            answer = lab.call("wan", "DELETE", path)
        elif changes:
            answer = lab.call("wan", "PUT", path, changes)
        else:
            links["links"] = [each for each in links["links"] if {each["from"], each["to"]} == {a, b}]
            return _show(links, as_json=args.json)
    print(json.dumps(answer, indent=2) if args.json else f"{a} – {b}: " + ("reset" if args.reset else _words(changes)))
    return 0


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(WORDS[key].format(value) for key, value in settings.items())


def _show(answer: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer, indent=2))
        return 0
    rows = [_row(*each) for each in _grouped(answer)]
    used = [title for title in rows[0] if any(row[title] for row in rows)]
    table = terminal.table(*used, numbers=("round trip", "jitter", "loss", "rate"))
    for i, row in enumerate(rows):
        if i and row["from"] != rows[i - 1]["from"] and len(rows) > 2:
            table.add_row()
        table.add_row(*(row[title] for title in used))
    terminal.console().print(table)
    return 0


def _row(one: str, other: str, settings: dict[str, Any]) -> dict[str, str]:
    """Return one table row as a mapping from column title to text."""
    also = [WORDS[key].format(settings[key]) for key in RARE if settings.get(key)]
    return {
        "from": one,
        "to": other,
        "round trip": f"{settings['rtt_ms']:g} ms",
        "jitter": f"{settings['jitter_ms']:g} ms" if settings.get("jitter_ms") else "",
        "loss": f"{settings['loss']:.2%}" if settings.get("loss") else "",
        "rate": f"{settings['rate_bps'] / 1e6:g} Mbit/s" if settings.get("rate_bps") else "",
        "also": ", ".join([*also, *(["changed"] if settings.get("changed") else [])]),
    }


def _grouped(answer: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (region, other region, settings), grouped by region.

    If both directions of a link have the same settings, they are one entry.  If all remaining links of a region have
    the same settings, they are also one entry, with "all others" or "the rest" as the other region.
    """
    ways = {(each.pop("from"), each.pop("to")): each for each in map(dict, answer["links"])}
    left = [name for name in answer["regions"] if any(name in way for way in ways)]
    others = "all others"
    while left:
        region, *left = left
        mine = [settings for way, settings in ways.items() if region in way and set(way) <= {region, *left}]
        if len(left) > 1 and len(mine) == 2 * len(left) and all(each == mine[0] for each in mine):
            yield region, others, mine[0]
        else:
            for other in left:
                there, back = ways.get((region, other)), ways.get((other, region))
                arrows = [("⇄", there)] if there == back else [("→", there), ("←", back)]
                yield from ((region, f"{arrow} {other}", each) for arrow, each in arrows if each is not None)
        others = "the rest"  # the links to earlier regions are already listed
