"""The key ceremony, which creates the root, the issuing CA, their passphrases, the admin token and the TSIG key.

The ceremony is atomic.  The first run writes all files; if it is interrupted, the next run removes its files and starts
again.  A later run checks that all files are consistent, and restores at most three of them: the trust anchor (a copy
of the root certificate), the admin token, and the TSIG key of the name servers.  If any other file is missing or
inconsistent, the ceremony fails and writes nothing.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from authority.errors import AuthorityError, KeyFileError
from authority.issuance import Issuer, issue_intermediate, issue_root
from authority.keys import (
    issuing_files,
    load_certificate,
    load_issuer,
    load_private_key,
    new_key,
    private_key_pem,
)
from authority.rotation import TRANSCRIPT, State, read_state, root_files, trust_bundle
from authority.transcript import Transcript
from hostfiles.atomic import atomic_write

PRIVATE, PUBLIC = 0o600, 0o644
#: The TSIG key of the lab's name servers, as `tsig-keygen` writes it and `nsupdate -k` reads it.
TSIG_KEY = 'key "lab." {{ algorithm hmac-sha256; secret "{secret}"; }};\n'
#: Advice in error messages: inconsistent volumes cannot be repaired, and a lab contains nothing of value.
REMEDY = "remove the volumes of the earlier lab (`docker compose --profile '*' down -v --remove-orphans`)"


class CeremonyError(AuthorityError):
    """The existing files are inconsistent or incomplete; no file is changed."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the ceremony."""

    what: str
    path: Path
    mode: int = PRIVATE


@dataclass(slots=True)
class Ceremony:
    """One run of the key ceremony, and the folders for its files.

    In the lab each folder is a separate volume, so that each host can mount only the files that it needs.
    """

    root: Path
    ca: Path
    trust: Path
    passphrase: Path
    token: Path
    #: Folder of the TSIG key; if None, no TSIG key is created.
    tsig: Path | None = None
    #: One line per file, which states whether the file was created or kept.
    log: list[str] = field(default_factory=list, init=False)
    #: Numbers of the root and issuing CA files in use; rotations change these numbers.
    _state: State = field(default_factory=State, init=False)

    def run(self, now: float) -> list[str]:
        """Create or check all files; return `log`, one line for each file.

        Raises:
            CeremonyError: a folder or file is missing, can be read by others, or is inconsistent with the rest.
            KeyFileError: a file is malformed, or its passphrase is wrong.
            ChainError: the transcript was changed.
        """
        optional = () if self.tsig is None else (self.tsig,)
        for folder in (self.root, self.ca, self.trust, self.passphrase, self.token, *optional):
            if not folder.is_dir():
                raise CeremonyError(f"{folder}: expected a folder")
        self._state = read_state(self.root)
        transcript = Transcript(self.root / TRANSCRIPT)
        self._undo_unfinished(transcript, now)
        there = [each for each in self._files() if each.path.exists()]
        new = self._restore(there) if there else self._make(now)
        if new or not transcript.entries:
            self._write(new, transcript, now)
        self.log = [f"{each.what}: {'made' if each.path in new else 'kept'}" for each in self._files()]
        return self.log

    def _files(self) -> tuple[_File, ...]:
        """Return all files in the order of writing; the trust anchor, which other hosts read, is last."""
        root, root_key = root_files(self.root, self._state.root)
        issuing, issuing_key = issuing_files(self.ca, self._state.issuer)
        return (
            _File("admin token", self.token / "admin.token"),
            *(() if self.tsig is None else (_File("TSIG key", self.tsig / "lab.key"),)),
            _File("root passphrase", self.root / "passphrase"),
            _File("root key", root_key),
            _File("root", root, PUBLIC),
            _File("issuing passphrase", self.passphrase / "passphrase"),
            _File("issuing key", issuing_key),
            _File("issuing CA", issuing, PUBLIC),
            _File("trust anchor", self.trust / "root.pem", PUBLIC),
        )

    def _make(self, now: float) -> dict[Path, bytes]:
        """Return the content of all files for a new lab, keyed by path."""
        root_words, issuing_words = (secrets.token_urlsafe(32).encode() for _ in range(2))
        root_key, issuing_key = new_key(), new_key()
        root = issue_root(root_key, "firstbyte lab root", now)
        parent = Issuer(root, root_key, ())
        issuing = issue_intermediate(parent, issuing_key.public_key(), "firstbyte lab issuing CA 1", now)
        contents = (
            _token(),
            *(() if self.tsig is None else (_tsig_key(),)),
            root_words + b"\n",
            private_key_pem(root_key, root_words),
            root.public_bytes(Encoding.PEM),
            issuing_words + b"\n",
            private_key_pem(issuing_key, issuing_words),
            issuing.public_bytes(Encoding.PEM),
            root.public_bytes(Encoding.PEM),
        )
        return {each.path: content for each, content in zip(self._files(), contents, strict=True)}

    def _restore(self, there: list[_File]) -> dict[Path, bytes]:
        """Check the files of an earlier ceremony; return the content of those to restore, keyed by path."""
        token, *needed, anchor = self._files()
        tsig = None if self.tsig is None else needed.pop(0)
        if missing := [each for each in needed if each not in there]:
            names = ", ".join(str(each.path) for each in missing)
            raise CeremonyError(f"expected all files of an earlier ceremony, {names} is missing: {REMEDY}")
        for each in there:
            if each.mode == PRIVATE and each.path.stat().st_mode & 0o077:
                mode = f"{each.path.stat().st_mode & 0o777:o}"
                raise CeremonyError(f"{each.path}: expected mode 600, got {mode}: others may have read it")
        root = self._check_root()
        self._check_issuing(root)
        if anchor in there and not {root, *self._new_root()} & set(_certificates(anchor.path)):
            path = root_files(self.root, self._state.root)[0]
            raise CeremonyError(f"{anchor.path}: expected {path} among the trust anchors: {REMEDY}")
        new = {}
        if token not in there:
            new[token.path] = _token()
        if tsig is not None and tsig not in there:
            new[tsig.path] = _tsig_key()
        if anchor not in there:
            new[anchor.path] = self._bundle()
        return new

    def _new_root(self) -> list[x509.Certificate]:
        """Return the new root if a rotation of the root is in progress; otherwise return an empty list."""
        file = root_files(self.root, self._state.new.root)[0]
        return [load_certificate(file)] if self._state.kind == "root" else []

    def _bundle(self) -> bytes:
        """Return the content of the trust bundle; during a rotation of the root, the bundle may contain both roots."""
        both = self._state.kind == "root" and self._state.step in {"trust-both", "sign-new"}
        numbers = (self._state.root, *((self._state.new.root,) if both else ()))
        return trust_bundle(self._state.bundle, [load_certificate(root_files(self.root, each)[0]) for each in numbers])

    def _check_root(self) -> x509.Certificate:
        certificate_file, key_file = root_files(self.root, self._state.root)
        certificate = load_certificate(certificate_file)
        key = load_private_key(key_file, (self.root / "passphrase").read_bytes().strip())
        if key.public_key() != certificate.public_key():
            raise CeremonyError(f"{key_file} is not the key of {certificate_file}")
        return certificate

    def _check_issuing(self, root: x509.Certificate) -> None:
        issuing = load_issuer(self.ca, self.passphrase / "passphrase", self._state.issuer)
        try:
            issuing.certificate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            file, parent = issuing_files(self.ca, self._state.issuer)[0], root_files(self.root, self._state.root)[0]
            raise CeremonyError(f"{file} was not issued by {parent}: {REMEDY}") from None

    def _write(self, new: dict[Path, bytes], transcript: Transcript, now: float) -> None:
        """Write the hashes of the *new* files to the transcript, then the files; remove these files on an error."""
        certificates = [load_certificate(each.path) for each in self._files() if each.mode == PUBLIC and not new]
        certificates += [x509.load_pem_x509_certificate(pem) for pem in new.values() if b"BEGIN CERT" in pem]
        subjects = {f"{each.serial_number:x}": each.subject.rfc4514_string() for each in certificates}
        modes = {each.path: each.mode for each in self._files()}
        try:
            transcript.append(now, "begin", files={str(path): _hash(content) for path, content in new.items()})
            for path, content in new.items():
                atomic_write(path, content, modes[path])
            transcript.append(now, "end", certificates=subjects)
        except OSError as error:
            for path in new:
                path.unlink(missing_ok=True)
            raise CeremonyError(f"expected to write all files, got {error}; those written were removed") from None

    def _undo_unfinished(self, transcript: Transcript, now: float) -> None:
        """Remove the files of an interrupted ceremony."""
        if not transcript.entries or transcript.entries[-1].event != "begin":
            return
        for path, digest in transcript.entries[-1].facts["files"].items():
            if Path(path).exists() and _hash(Path(path).read_bytes()) == digest:
                Path(path).unlink()
        transcript.append(now, "undone")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise KeyFileError(f"{path}: expected PEM certificates") from None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _token() -> bytes:
    return secrets.token_urlsafe(32).encode() + b"\n"


def _tsig_key() -> bytes:
    return TSIG_KEY.format(secret=base64.b64encode(secrets.token_bytes(32)).decode()).encode()
