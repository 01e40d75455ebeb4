"""``python -m subject``: observe a subject; in a lab without Docker, also run the subject's program."""

import argparse
import asyncio
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from hostfiles.layout import TRUST_ANCHOR
from subject.certificates import Shelf
from subject.listening import ports
from subject.program import Program
from telemetry import Telemetry, add_arguments, log

#: Interval between scans of the subject's folder for certificates, in seconds.
SCAN = 0.25
#: Name and password of the trust store for Java, below the subject's folder; the password is Java's default.
TRUST_STORE, PASSWORD = "trust.p12", b"changeit"

logger = log.get("subject")


async def _serve(args: argparse.Namespace) -> int:
    telemetry, shelf = Telemetry("subject"), Shelf(args.folder, args.name)
    program = Program(args.command, args.directory) if args.command else None

    def report() -> dict[str, Any]:
        return {
            "name": args.name,
            "port": args.port,
            "listening": ports(),
            "exit_code": None if program is None else program.exit_code,
            "last_line": "" if program is None else program.last,
            "certificates": [asdict(each) for each in sorted(shelf.found.values(), key=lambda each: each.written)],
            "unreadable": shelf.unreadable,
        }

    def check() -> None:
        found = ports()
        elsewhere = ", ".join(map(str, sorted(found))) or "none"
        telemetry.health.set("port", args.port in found, f"expected {args.port}; listening on {elsewhere}")
        if program is not None and program.exit_code is not None:
            telemetry.health.set("program", ok=False, detail=f"ended with exit code {program.exit_code}")

    telemetry.health.before_report(check)
    telemetry.route("GET", "/admin/subject", lambda _: report())
    _prepare(args.folder)
    async with telemetry.serving(args):
        if program is not None:
            await program.start()
        logger.info("started", name=args.name, port=args.port, command=" ".join(args.command))
        scanning = asyncio.create_task(_scan(shelf))
        try:
            await telemetry.until_stopped()
        finally:
            scanning.cancel()
            if program is not None:
                await program.stop()
    return 0


async def _scan(shelf: Shelf) -> None:
    while True:
        await asyncio.to_thread(shelf.scan)
        await asyncio.sleep(SCAN)  # polls: inotify would need a watch for each new folder


def _prepare(folder: Path) -> None:
    """Make *folder* writable for all users, because a subject may have any uid, and write Java's trust store to it."""
    with suppress(PermissionError):  # the folder belongs to another user, who is responsible for its mode
        folder.chmod(0o1777)
    if TRUST_ANCHOR.exists():
        write_trust_store(folder, TRUST_ANCHOR)


def write_trust_store(folder: Path, trust: Path) -> None:
    """Write the roots in the PEM file *trust* to `TRUST_STORE` in *folder*."""
    roots = x509.load_pem_x509_certificates(trust.read_bytes())
    entries = [PKCS12Certificate(root, f"firstbyte-{number}".encode()) for number, root in enumerate(roots)]
    (folder / TRUST_STORE).write_bytes(serialize_java_truststore(entries, BestAvailableEncryption(PASSWORD)))


def main(argv: list[str] | None = None) -> int:
    """Run the observer until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="subject",
        description="Report which certificates a subject has on disk and on which ports it listens.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m subject --name mine.example.com --admin 127.0.0.1:9900 --token-file token\n"
        "  python -m subject --name mine.example.com --folder data -- nginx -g 'daemon off;'",
    )
    parser.add_argument("--name", required=True, help="DNS name of the subject")
    parser.add_argument("--port", type=int, default=443, help="port on which it should listen (443)")
    parser.add_argument("--folder", type=Path, default=Path("/srv/subject"), help="where it keeps its files")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="run the program there (default: here)")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="run this program; default: none")
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("subject", args.log_level)
    try:
        return asyncio.run(_serve(args))
    except OSError as error:
        print(f"subject: error: {error.filename or args.folder}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
