"""Command line of the CA, ``python -m authority``: key ceremony, issued certificates and issuance log."""

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path

from authority.backup import MODE, backup, restore
from authority.ceremony import Ceremony
from authority.errors import AuthorityError
from authority.keys import active_number, issuing_files, load_certificate
from authority.rotation import STEPS, TRANSCRIPT, Rotation, read_state
from authority.store import Store
from authority.transcript import Transcript
from authority.verify_log import verify_log


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; return 0 on success, 1 if ``verify-log`` finds a discrepancy, and 2 on an error."""
    parser = argparse.ArgumentParser(
        prog="authority",
        description="The lab's certificate authority.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m authority ceremony --root root --ca ca --trust trust --passphrase-dir secret --token-dir token\n"
        "  python -m authority show --ca ca --json",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    ceremony = commands.add_parser(
        "ceremony", help="create all keys, certificates, passphrases and the admin token, or check them"
    )
    for flag, what in (
        ("--root", "the root's key and certificate"),
        ("--ca", "the issuing CA's key, certificate and store"),
        ("--trust", "root.pem, readable by every host"),
        ("--passphrase-dir", "the passphrase of the issuing key"),
        ("--token-dir", "the admin token"),
    ):
        ceremony.add_argument(flag, type=Path, required=True, metavar="DIR", help=what)
    ceremony.add_argument(
        "--tsig-dir", type=Path, metavar="DIR", help="the name servers' TSIG key (default: none is made)"
    )
    show = commands.add_parser("show", help="show the issuing CA and the certificates that it issued")
    show.add_argument("--ca", type=Path, required=True, metavar="DIR")
    show.add_argument("--json", action="store_true")
    rotate = commands.add_parser(
        "rotate", help="perform a step of the replacement of the root or the issuing CA; without a step: show the state"
    )
    for flag in ("--root", "--ca", "--trust", "--passphrase-dir"):
        rotate.add_argument(flag, type=Path, required=True, metavar="DIR", help="as for the ceremony")
    rotate.add_argument("kind", nargs="?", choices=sorted(STEPS))
    rotate.add_argument("step", nargs="?", choices=STEPS["root"])
    transcript = commands.add_parser("transcript", help="verify the ceremony's transcript and show it")
    transcript.add_argument("--root", type=Path, required=True, metavar="DIR")
    verify = commands.add_parser(
        "verify-log", help="verify the issuance log, and compare the store and servers with it; 1: something is wrong"
    )
    verify.add_argument("--ca", type=Path, required=True, metavar="DIR")
    verify.add_argument("--json", action="store_true")
    verify.add_argument("server", nargs="*", type=_server, metavar="HOST:PORT", help="a TLS server")
    save = commands.add_parser("backup", help="write issuing CAs, store and issuance log to a file while the CA runs")
    save.add_argument("--ca", type=Path, required=True, metavar="DIR")
    save.add_argument("file", metavar="FILE", help="-: standard output")
    back = commands.add_parser("restore", help="validate a backup and restore its files; the CA must be stopped")
    back.add_argument("--ca", type=Path, required=True, metavar="DIR")
    back.add_argument("--passphrase-file", type=Path, required=True, metavar="FILE")
    back.add_argument("--trust", type=Path, required=True, metavar="FILE", help="root certificates")
    back.add_argument("--discard-newer", action="store_true", help="forget certificates issued since the backup")
    back.add_argument("file", metavar="FILE", help="-: standard input")
    args = parser.parse_args(argv)
    try:
        if args.command in {"backup", "restore"}:
            return _backup(args)
        if args.command == "verify-log":
            return verify_log(args)
        if args.command == "rotate":
            return _rotate(args)
        if args.command == "show":
            return _show(args)
        if args.command == "transcript":
            return _transcript(args)
        folders = (args.root, args.ca, args.trust, args.passphrase_dir, args.token_dir, args.tsig_dir)
        for line in Ceremony(*folders).run(time.time()):
            print(line, flush=True)
    except AuthorityError as error:
        print(f"authority: error: {error}", file=sys.stderr)
        return 2
    return 0


def _rotate(args: argparse.Namespace) -> int:
    """Perform the rotation step *args.step*, if given; print the state of the rotation as JSON."""
    rotation = Rotation(args.root, args.ca, args.trust, args.passphrase_dir)
    try:
        state = rotation.advance(args.kind, args.step, time.time()) if args.step else read_state(args.root)
    except OSError as error:
        print(f"authority: error: {error}; the step can be repeated", file=sys.stderr)
        return 2
    kinds = [state.kind] if state.kind else sorted(STEPS)
    signing = load_certificate(issuing_files(args.ca, active_number(args.ca))[0]).subject.rfc4514_string()
    next_steps = {kind: state.next(kind) for kind in kinds}
    print(json.dumps({**dataclasses.asdict(state), "signs": signing, "next": next_steps}))
    return 0


def _backup(args: argparse.Namespace) -> int:
    """Write or restore the backup *args.file*; print a summary of its contents to standard error."""
    with contextlib.ExitStack() as stack:
        try:
            if args.command == "backup":
                out = sys.stdout.buffer
                if args.file != "-":
                    descriptor = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
                    out = stack.enter_context(os.fdopen(descriptor, "wb"))
                found = backup(args.ca, out, time.time())
            else:
                file = sys.stdin.buffer if args.file == "-" else stack.enter_context(Path(args.file).open("rb"))
                found = restore(file, args.ca, args.passphrase_file, args.trust, discard_newer=args.discard_newer)
        except OSError as error:
            print(f"authority: error: {error}", file=sys.stderr)
            return 2
    counts = f"{found.issuers} issuing CAs, {found.certificates} certificates, {found.entries} entries of the log"
    print(f"{args.command}: {counts}", file=sys.stderr)
    return 0


def _server(text: str) -> tuple[str, int]:
    """Parse HOST:PORT (an argparse type)."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    return host, int(port)


def _transcript(args: argparse.Namespace) -> int:
    """Verify the hashes of the transcript and print its entries."""
    for entry in Transcript(args.root / TRANSCRIPT).entries:
        print(f"{dt.datetime.fromtimestamp(entry.at, dt.UTC):%Y-%m-%d %H:%M:%S} {entry.event}")
        for facts in entry.facts.values():
            for key, value in facts.items():
                print(f"    {key}  {value}")
    return 0


def _show(args: argparse.Namespace) -> int:
    issuing = load_certificate(issuing_files(args.ca, active_number(args.ca))[0])
    store = Store(args.ca / "store.sqlite")
    try:
        issued = store.certificates()
    finally:
        store.close()
    if args.json:
        rows = [{"serial": c.serial, "names": c.names, "not_after": c.not_after, "revoked": c.revoked} for c in issued]
        print(json.dumps({"issuer": issuing.subject.rfc4514_string(), "certificates": rows}, indent=2))
        return 0
    print(f"{issuing.subject.rfc4514_string()}, until {issuing.not_valid_after_utc:%Y-%m-%d}")
    for each in issued:
        end = f"{dt.datetime.fromtimestamp(each.not_after, dt.UTC):%Y-%m-%d %H:%M:%S}"
        print(f"{each.serial[:16]}  {end}  {'revoked' if each.revoked else 'good':8} {', '.join(each.names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
