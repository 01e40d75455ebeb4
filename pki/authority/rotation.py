"""Rotation of the issuing CA or the root, in steps, while hosts keep running: trust root A, then both A and B, then B.

Each step first writes its files and then atomically updates the state; after a crash, the same step is repeated.  Only
the ceremony's host performs these steps, because they use the root's key.  This module does not check whether all hosts
are ready for the next step; `firstbyte pki rotate` does.

    prepare       new keys and certificates are created; the old root also certifies a new root (cross-certificate)
    trust-both    the trust bundle contains the old and the new root      (only for a new root)
    sign-new      the new issuing CA signs all future leaves
    trust-new     the trust bundle contains the new root only            (only for a new root)
    retire        the private key of the old root is deleted; the old issuing CA is marked as retired

A retired issuing CA signs only revocation data.  The CA server deletes the retired CA's files when its last leaf has
expired.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority.errors import AuthorityError
from authority.issuance import Issuer, issue_cross, issue_intermediate, issue_root
from authority.keys import (
    ACTIVE,
    issuing_files,
    load_certificate,
    load_private_key,
    new_key,
    private_key_pem,
    retired_file,
)
from authority.transcript import Transcript
from hostfiles.atomic import atomic_write

#: The steps of each kind of rotation, in order.
STEPS = {
    "root": ("prepare", "trust-both", "sign-new", "trust-new", "retire"),
    "intermediate": ("prepare", "sign-new", "retire"),
}
#: For each kind of rotation, the step after which the ceremony checks the new files instead of the old files.
PROMOTES = {"root": "trust-new", "intermediate": "sign-new"}
#: Files with the state of the rotation and with the transcript, in the folder of the root's key.
STATE, TRANSCRIPT = "rotation.json", "transcript.jsonl"
#: First line of a trust bundle, which PEM parsers ignore.  A bundle without this line is version 1.
HEADER = "# trust bundle {version}\n"


class RotationError(AuthorityError):
    """The requested step is not the next one, or another rotation is in progress; no file was changed."""


@dataclass(frozen=True, slots=True)
class State:
    """Progress of a rotation, and the numbers of the files in use."""

    #: Number of the root in use.
    root: int = 1
    #: Number of the issuing CA in use.
    issuer: int = 1
    #: Version of the trust bundle.
    bundle: int = 1
    #: ``root`` or ``intermediate``; empty if no rotation is in progress.
    kind: str = ""
    #: The last step that was performed; empty if no rotation is in progress.
    step: str = ""

    def next(self, kind: str) -> str:
        """Return the next step of a rotation of the given *kind*.

        Raises:
            RotationError: a rotation of the other kind is in progress.
        """
        if self.kind and self.kind != kind:
            raise RotationError(f"expected to finish the rotation of the {self.kind} first, which is at {self.step}")
        steps = STEPS[kind]
        return steps[steps.index(self.step) + 1] if self.step else steps[0]

    @property
    def old(self) -> "State":
        """The numbers of the root and issuing CA files that this rotation replaces."""
        if not self.kind or self.step not in self._promoted():
            return self
        return replace(self, issuer=self.issuer - 1, root=self.root - (self.kind == "root"))

    @property
    def new(self) -> "State":
        """The numbers of the root and issuing CA files that this rotation creates."""
        old = self.old
        return replace(self, issuer=old.issuer + 1, root=old.root + (self.kind == "root"))

    def _promoted(self) -> tuple[str, ...]:
        steps = STEPS[self.kind]
        return steps[steps.index(PROMOTES[self.kind]) :]


def read_state(folder: Path) -> State:
    """Return the state stored in the root's *folder*; a missing file means that no rotation has ever begun.

    Raises:
        RotationError: the file is malformed.
    """
    path = folder / STATE
    try:
        state = State(**json.loads(path.read_bytes()))
        if state.kind and state.step not in STEPS[state.kind]:
            raise ValueError(f"unknown step {state.step!r}")
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RotationError(f"{path}: expected the state of a rotation: {error}") from None
    return state


def root_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the paths of the certificate and the key of root *number*."""
    suffix = "" if number == 1 else f"-{number}"
    return folder / f"root{suffix}.pem", folder / f"root{suffix}.key.pem"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Performs the steps of a rotation in the folders of a ceremony."""

    root: Path
    ca: Path
    trust: Path
    passphrase: Path

    def advance(self, kind: str, step: str, now: float) -> State:
        """Perform *step* of a rotation of the given *kind*, and return the new state.

        Raises:
            RotationError: *step* is not the next one.
            KeyFileError: a file is missing or malformed, or its passphrase is wrong.
            OSError: a file cannot be written; the step can be repeated.
        """
        state = read_state(self.root)
        if (expected := state.next(kind)) != step:
            raise RotationError(f"expected {expected}, the next step of this rotation; got {step}")
        state = replace(state, kind=kind)
        match step:
            case "prepare":
                self._prepare(state.new, now)
            case "trust-both":
                state = replace(state, bundle=state.bundle + 1)
                self._write_bundle(state.bundle, state.old.root, state.new.root)
            case "sign-new":
                atomic_write(self.ca / ACTIVE, f"{state.new.issuer}\n".encode())
            case "trust-new":
                state = replace(state, bundle=state.bundle + 1)
                self._write_bundle(state.bundle, state.new.root)
                self._drop_cross_certificate(state.new.issuer)
            case "retire":
                self._retire(state.old)
        if step == PROMOTES[kind]:
            state = state.new
        done = replace(state, kind="", step="") if step == "retire" else replace(state, step=step)
        Transcript(self.root / TRANSCRIPT).append(now, "rotate", rotation={"kind": kind, "step": step, **_facts(done)})
        atomic_write(self.root / STATE, json.dumps(asdict(done)).encode())
        return done

    def _prepare(self, new: State, now: float) -> None:
        old = self._root(new.root if new.kind == "intermediate" else new.root - 1)
        root_words, issuing_words = (
            (folder / "passphrase").read_bytes().strip() for folder in (self.root, self.passphrase)
        )
        parent, chain = old, b""
        if new.kind == "root":
            key = new_key()
            parent = Issuer(issue_root(key, f"firstbyte lab root {new.root}", now), key, ())
            chain = issue_cross(old, parent.certificate, now).public_bytes(Encoding.PEM)
            certificate_file, key_file = root_files(self.root, new.root)
            atomic_write(key_file, private_key_pem(key, root_words), 0o600)
            atomic_write(certificate_file, parent.certificate.public_bytes(Encoding.PEM))
        key = new_key()
        issuing = issue_intermediate(parent, key.public_key(), f"firstbyte lab issuing CA {new.issuer}", now)
        certificate_file, key_file = issuing_files(self.ca, new.issuer)
        atomic_write(key_file, private_key_pem(key, issuing_words), 0o600)
        # The certificate is written last: the CA loads the pair as soon as this file exists.
        atomic_write(certificate_file, issuing.public_bytes(Encoding.PEM) + chain)

    def _root(self, number: int) -> Issuer:
        certificate_file, key_file = root_files(self.root, number)
        passphrase = (self.root / "passphrase").read_bytes().strip()
        return Issuer(load_certificate(certificate_file), load_private_key(key_file, passphrase), ())

    def _write_bundle(self, version: int, *numbers: int) -> None:
        roots = [load_certificate(root_files(self.root, number)[0]) for number in numbers]
        atomic_write(self.trust / "root.pem", trust_bundle(version, roots))

    def _drop_cross_certificate(self, issuer: int) -> None:
        file, _ = issuing_files(self.ca, issuer)
        atomic_write(file, load_certificate(file).public_bytes(Encoding.PEM))

    def _retire(self, old: State) -> None:
        atomic_write(retired_file(self.ca, old.issuer), b"")
        if old.kind == "root":
            root_files(self.root, old.root)[1].unlink(missing_ok=True)


def trust_bundle(version: int, roots: list[x509.Certificate]) -> bytes:
    """Return the content of the trust bundle: its *version*, and the *roots* in PEM."""
    header = HEADER.format(version=version) if version > 1 else ""
    return header.encode() + b"".join(each.public_bytes(Encoding.PEM) for each in roots)


def _facts(state: State) -> dict[str, int]:
    return {"root": state.root, "issuer": state.issuer, "bundle": state.bundle}
