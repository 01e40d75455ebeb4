"""``firstbyte pki``: print the trust anchor, or list the certificates that the CA has issued."""

import argparse
import json
import sys
from typing import Any

from firstbyte import terminal, where
from hostfiles.layout import TRUST_ANCHOR
from runtime import InsideLab, LabDownError


def pki(args: argparse.Namespace) -> int:
    """Print the trust anchor, or list the issued certificates."""
    return _root() if args.kind == "root" else _list(as_json=args.json)


def _root() -> int:
    with where.lab() as lab:
        if isinstance(lab, InsideLab):
            pem = TRUST_ANCHOR.read_bytes()
        else:
            code, pem, err = lab.capture("client", ["cat", str(TRUST_ANCHOR)])
            if code:
                raise LabDownError(f"client: {err.decode(errors='replace').strip()}")
    sys.stdout.write(pem.decode("ascii"))
    return 0


def _list(*, as_json: bool) -> int:
    with where.lab() as lab:
        issued = lab.call("ca", "GET", "/admin/certificates")["certificates"]
    valid: list[dict[str, Any]] = [each for each in issued if each["seconds_left"] > 0]
    if as_json:
        dates = ("not_before", "not_after", "issued")
        print(json.dumps([each | {name: terminal.iso(each[name]) for name in dates} for each in valid], indent=2))
        return 0
    for each in sorted(valid, key=lambda each: (each["names"], each["seconds_left"])):
        state, left = "revoked" if each["revoked"] else "good", _left(each["seconds_left"])
        print(f"{', '.join(each['names'])}\n  {state}; expires {terminal.date(each['not_after'])}, in {left}")
        print(f"  serial {each['serial']}")
    return 0


def _left(seconds: float) -> str:
    """Format a duration in the largest unit whose count is at least two; *seconds* is the remaining lifetime."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
