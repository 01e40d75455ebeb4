"""``firstbyte pki backup`` and ``restore``: save and restore the CA's keys, store and issuance log as a local file."""

import argparse
import sys

from firstbyte import where
from hostfiles.atomic import atomic_write
from hostfiles.layout import TRUST_ANCHOR
from runtime import LabError, RefusedError, UsageError

#: Folder of the CA's keys, store and issuance log, on the host ``ca``.
CA_FOLDER = "/srv/ca"
#: Arguments of ``authority restore``, which runs on the host that performs ceremonies.
RESTORE = (
    "restore",
    "--ca",
    CA_FOLDER,
    "--passphrase-file",
    "/srv/passphrase/passphrase",
    "--trust",
    str(TRUST_ANCHOR),
)


def backup(args: argparse.Namespace) -> int:
    """Write a backup to *args.file*, with read permission for the user only; the CA keeps running."""
    with where.outside("pki backup") as lab:
        code, out, err = lab.capture("ca", ["python", "-m", "authority", "backup", "--ca", CA_FOLDER, "-"])
    if code:
        raise LabError(_reason(err))
    try:
        atomic_write(args.file, out, 0o600)
    except OSError as error:
        raise UsageError(f"{args.file}: {error.strerror}") from None
    print(_reason(err), file=sys.stderr)
    return 0


def restore(args: argparse.Namespace) -> int:
    """Stop the CA, restore the backup *args.file*, and start the CA again, even if the backup is rejected."""
    try:
        file = args.file.open("rb")
    except OSError as error:
        raise UsageError(f"{args.file}: {error.strerror}") from None
    words = [*RESTORE, *(["--discard-newer"] if args.discard_newer else []), "-"]
    with file, where.outside("pki restore") as lab:
        lab.stop("ca")
        try:
            code, _, err = lab.run_once("ceremony", words, file)
        finally:
            lab.start("ca")
    if code:
        raise RefusedError(_reason(err))
    print(_reason(err), file=sys.stderr)
    return 0


def _reason(err: bytes) -> str:
    """Return the last line that the command wrote to standard error."""
    return err.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("authority: error: ")
