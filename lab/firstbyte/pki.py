"""``firstbyte pki``: operate the certificate authority."""

import argparse
import json
import sys
from typing import Any

from firstbyte import terminal, where
from hostfiles.layout import TRUST_ANCHOR
from runtime import InsideLab, LabDownError, LabError

#: Folder of the CA's key, store and issuance log, on the host ``ca``.
CA_FOLDER = "/srv/ca"
#: TLS servers whose certificates `verify-log` compares with the issuance log by default.
SERVERS = ("www.example.com:443", "far.example.com:443")


def pki(args: argparse.Namespace) -> int:
    """Run the subcommand *args.kind*."""
    if args.kind == "verify-log":
        return _verify_log(args)
    return _root() if args.kind == "root" else _list(as_json=args.json)


def _verify_log(args: argparse.Namespace) -> int:
    """Verify the issuance log on the CA's host; return 0, or 1 if it is damaged or lacks a certificate."""
    command = ["python", "-m", "authority", "verify-log", "--ca", CA_FOLDER, *(["--json"] if args.json else [])]
    with where.outside("pki verify-log") as lab:
        code, out, err = lab.capture("ca", [*command, *(args.server or SERVERS)])
    if code not in {0, 1} or not out:
        raise LabError(f"ca: {err.decode(errors='replace').strip()}")
    sys.stdout.write(out.decode())
    return code


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
