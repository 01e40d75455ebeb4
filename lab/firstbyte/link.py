"""``firstbyte link``: show the links between regions, or change one while the lab runs."""

import argparse
import json
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from firstbyte import where
from runtime import RefusedError, UsageError

#: Ways to damage a payload, as `wan.damage` names them.
CORRUPTIONS = ("bitflip", "swap16", "plusminus", "random")
#: What the command line says of each setting.
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
#: Those that are shown only where they are set.
RARE = ("duplicate", "reorder", *(f"corrupt_{mode}" for mode in CORRUPTIONS))


def link(args: argparse.Namespace) -> int:
    """List links, or set or reset one."""
    changes = _changes(args)
    if args.between is None and (changes or args.reset or args.one_way):
        raise UsageError("expected REGION:REGION before settings, got none")
    if args.reset and changes:
        raise UsageError("expected --reset alone, got settings beside it")
    with where.lab() as lab:
        if args.between is None:
            return _show(lab.call("wan", "GET", "/admin/links"), as_json=args.json)
        a, b = args.between
        path = f"/admin/links/{quote(a)}/{quote(b)}" + ("?direction=one" if args.one_way else "")
        if args.reset:
            answer = lab.call("wan", "DELETE", path)
        elif changes:
            answer = lab.call("wan", "PUT", path, changes)
        else:
            links = lab.call("wan", "GET", "/admin/links")
            if missing := [name for name in (a, b) if name not in links["regions"]]:
                raise RefusedError(f"expected a region among {', '.join(links['regions'])}, got {missing[0]!r}")
            links["links"] = [x for x in links["links"] if {x["from"], x["to"]} == {a, b}]
            return _show(links, as_json=args.json)
    print(json.dumps(answer, indent=2) if args.json else f"{a} – {b}: " + ("reset" if args.reset else _words(changes)))
    return 0


def pair(text: str) -> tuple[str, str]:
    """Parse ``REGION:REGION`` (an argparse type)."""
    first, _, second = text.partition(":")
    if not first or not second:
        raise argparse.ArgumentTypeError(f"expected REGION:REGION, for example access:near; got {text!r}")
    return first, second


def milliseconds(text: str) -> float:
    """Parse ``80``, ``80ms`` or ``0.08s`` (an argparse type)."""
    number, factor = (
        (text[:-2], 1.0) if text.endswith("ms") else (text[:-1], 1000.0) if text.endswith("s") else (text, 1.0)
    )
    try:
        value = float(number) * factor
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected milliseconds, for example 80 or 80ms; got {text!r}") from None
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"expected 0 to 60000 ms, got {text!r}")
    return value


def probability(text: str) -> float:
    """Parse ``0.01`` or ``1%`` (an argparse type)."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a probability, for example 0.01 or 1%; got {text!r}") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1 (or 0% to 100%), got {text!r}")
    return value


def bit_rate(text: str) -> int:
    """Parse ``10M``, ``512k`` or bits per second; ``0`` is unlimited (an argparse type)."""
    factors = {"k": 1e3, "M": 1e6, "G": 1e9}
    try:
        value = float(text[:-1]) * factors[text[-1]] if text[-1:] in factors else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected bits per second, for example 10M or 512k; got {text!r}") from None
    if value and not 1e3 <= value <= 1e11:  # NaN too
        raise argparse.ArgumentTypeError(f"expected 0 (unlimited) or 1k to 100G bits per second, got {text!r}")
    return int(value)


def corruption(text: str) -> dict[str, float]:
    """Parse ``MODE:P``, or ``plusminus:P:K`` (an argparse type); return the settings that it stands for."""
    mode, *values = text.split(":")
    if mode not in CORRUPTIONS or not values or len(values) > (2 if mode == "plusminus" else 1):
        raise argparse.ArgumentTypeError(
            f"expected MODE:P with a mode of {', '.join(CORRUPTIONS)}, for example swap16:5%; got {text!r}"
        )
    settings: dict[str, float] = {f"corrupt_{mode}": probability(values[0])}
    if values[1:]:
        if not values[1].isdecimal() or not 1 <= int(values[1]) <= 65_535:
            raise argparse.ArgumentTypeError(f"expected K between 1 and 65535, got {values[1]!r}")
        settings["corrupt_k"] = int(values[1])
    return settings


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line names, by the wan's keys."""
    named = {
        "rtt_ms": args.rtt,
        "jitter_ms": args.jitter,
        "loss": args.loss,
        "rate_bps": args.rate,
        "duplicate": args.duplicate,
        "reorder": args.reorder,
        "reorder_ms": args.reorder_by,
    }
    for each in args.corrupt or ():
        named.update(each)
    return {key: value for key, value in named.items() if value is not None}


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(WORDS[key].format(value) for key, value in changes.items())


def _show(answer: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer, indent=2))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("from")
    table.add_column("to")
    for title in ("round trip", "jitter", "loss", "rate"):
        table.add_column(title, justify="right")
    table.add_column("besides")
    for each in answer["links"]:
        rate = each.get("rate_bps")
        besides = {key: value for key, value in each.items() if key in RARE and value}
        table.add_row(
            each["from"],
            each["to"],
            f"{each['rtt_ms']:g} ms",
            f"{each['jitter_ms']:g} ms" if each.get("jitter_ms") else "",
            f"{each['loss']:.2%}" if each.get("loss") else "",
            f"{rate / 1e6:g} Mbit/s" if rate else "",
            _words(besides),
        )
    Console().print(table)
    return 0
