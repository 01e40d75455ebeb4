"""``firstbyte pki``: the trust anchor, and what the CA has issued."""

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from firstbyte import where
from hostfiles.layout import TRUST_ANCHOR
from runtime import InsideLab, LabDownError


def root(_: argparse.Namespace) -> int:
    """Write the trust bundle as PEM on standard output."""
    with where.lab() as lab:
        if isinstance(lab, InsideLab):
            pem = TRUST_ANCHOR.read_bytes()
        else:
            code, pem, err = lab.capture("client", ["cat", str(TRUST_ANCHOR)])
            if code:
                raise LabDownError(f"client: {err.decode(errors='replace').strip()}")
    sys.stdout.write(pem.decode("ascii"))
    return 0


def list_(args: argparse.Namespace) -> int:
    """List the certificates that the CA has issued and that have not expired."""
    with where.lab() as lab:
        answer: Any = lab.call("ca", "GET", "/admin/certificates")
    issued: list[dict[str, Any]] = answer["certificates"] if isinstance(answer, dict) else answer
    live = [c for c in issued if c["seconds_left"] > 0]
    if args.json:
        print(json.dumps(live, indent=2))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("names", "serial", "not after", "left", "state"):
        table.add_column(title)
    for each in sorted(live, key=lambda c: (c["names"], c["seconds_left"])):
        state = "revoked" if each.get("revoked") else "good"
        table.add_row(
            ", ".join(each["names"]),
            each["serial"][:16],
            str(each["not_after"]),
            f"{each['seconds_left'] / 60:.0f} min",
            state,
        )
    Console().print(table)
    return 0
