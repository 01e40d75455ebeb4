"""``firstbyte pki``: operate the certificate authority."""

import argparse
import asyncio
import json
import sys
from typing import Any

from firstbyte import certificates, terminal, where
from firstbyte.backup import CA_FOLDER, backup, restore
from firstbyte.rotate import rotate
from hostfiles.layout import TRUST_ANCHOR
from monitor import command as monitor
from runtime import InsideLab, LabDownError, LabError, UsageError
from telemetry import log

#: TLS servers whose certificates `verify-log` compares with the issuance log by default.
SERVERS = ("www.example.com:443", "far.example.com:443")
#: All TLS servers of the lab, which `watch` monitors by default.
ENDPOINTS = (
    *SERVERS, "rsa.example.com:443", "news.example.com:443", "ca.example.com:443", "resolver.example.com:443",
    "catalog-1.example.com:8443", "catalog-2.example.com:8443", "catalog-3.example.com:8443",
)  # fmt: skip
#: Subcommands that other modules implement.
VERBS = {
    "rotate": rotate,
    "show": certificates.show,
    "request": certificates.request,
    "renew": certificates.renew,
    "revoke": certificates.revoke,
    "backup": backup,
    "restore": restore,
}


def pki(args: argparse.Namespace) -> int:
    """Run the subcommand *args.kind*."""
    if args.kind in VERBS:
        return VERBS[args.kind](args)
    if args.kind == "verify-log":
        return _verify_log(args)
    if args.kind == "watch":
        return _watch(args)
    if args.kind == "recall":
        return _recall(args)
    return _root() if args.kind == "root" else _list(as_json=args.json)


def _verify_log(args: argparse.Namespace) -> int:
    """Verify the issuance log on the CA's host; return 0, or 1 if the log is damaged or lacks a certificate."""
    command = ["python", "-m", "authority", "verify-log", "--ca", CA_FOLDER, *(["--json"] if args.json else [])]
    with where.outside("pki verify-log") as lab:
        code, out, err = lab.capture("ca", [*command, *(args.server or SERVERS)])
    if code not in {0, 1} or not out:
        raise LabError(f"ca: {err.decode(errors='replace').strip()}")
    sys.stdout.write(out.decode())
    return code


def _watch(args: argparse.Namespace) -> int:
    """Monitor endpoints from this machine; with ``--lab``, or if none are given, monitor from inside the lab."""
    if args.target and not args.lab:
        log.configure("monitor", args.log_level)
        return monitor.run(args)
    if not InsideLab.is_here():
        if wrong := [f"--{each}" for each in ("inventory", "trust") if getattr(args, each)]:
            raise UsageError(f"expected HOST:PORT, and no --lab, with {' and '.join(wrong)}: the lab has its own files")
        with where.outside("pki watch") as lab:
            lab.require_up()
            return lab.run_lab(["pki", "watch", "--lab", *monitor.words(args)])
    inventory = None if args.inventory or args.target else _certified
    args.target = args.target or [monitor.target(each) for each in ENDPOINTS]
    args.trust = args.trust or TRUST_ANCHOR
    log.configure("monitor", args.log_level)
    return monitor.run(args, inventory)


async def _certified() -> list[tuple[str, str]]:
    """Return the names and serial number of each valid certificate of the lab's CA, oldest first."""
    answer = await asyncio.to_thread(InsideLab().call, "ca", "GET", "/admin/certificates")
    return monitor.certified(each for each in answer["certificates"] if not each["revoked"])


def _recall(args: argparse.Namespace) -> int:
    """Begin, show or end recalls; print the recalls that are in force."""
    options = {"in_s": args.start_in, "spread_s": args.spread, "explanation_url": args.url}
    wanted: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    selects = bool(args.serial) or args.issuer is not None or args.all
    if wanted and not selects:
        raise UsageError("expected SERIAL, --issuer or --all with --in, --spread or --url, got none")
    if args.issuer is not None:
        wanted["issuer"] = args.issuer
    with where.lab() as lab:
        if args.end:
            answer = lab.call("ca", "DELETE", "/admin/recall")
        elif selects:
            if args.serial:
                wanted["serials"] = [certificates.serial_of(lab, each) for each in args.serial]
            answer = lab.call("ca", "POST", "/admin/recall", wanted)
        else:
            answer = lab.call("ca", "GET", "/admin/recall")
    recalls: list[dict[str, Any]] = answer["recalls"]
    if args.json:
        print(json.dumps([each | {name: terminal.iso(each[name]) for name in ("start", "end")} for each in recalls]))
        return 0
    for each in recalls:
        whose = ", ".join(each["serials"]) or (f"issuer {each['issuer']}" if each["issuer"] else "all certificates")
        print(f"{whose}\n  replace from {terminal.date(each['start'])} to {terminal.date(each['end'])}")
        print(f"  {each['replaced']} of {each['selected']} replaced {each['explanation_url']}".rstrip())
        if each["outstanding"]:
            print(f"  outstanding: {', '.join(each['outstanding'])}")
    if not recalls:
        print("no recall is in force")
    return 0


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
