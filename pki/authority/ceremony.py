"""The key ceremony, which creates the root, the issuing CA, their passphrases and the lab's admin token.

Running it again keeps existing files and creates missing ones, so it can resume after a crash.  It refuses to replace
a lost key, certificate or passphrase if certificates that depend on it already exist.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from authority.errors import AuthorityError
from authority.issuance import Issuer, issue_intermediate, issue_root
from authority.keys import (
    ISSUING_CERTIFICATE,
    ISSUING_KEY,
    load_certificate,
    load_issuer,
    load_private_key,
    new_key,
    write_private_key,
)
from hostfiles.atomic import atomic_write


class CeremonyError(AuthorityError):
    """The existing keys and certificates are inconsistent or incomplete; none of them is changed."""


@dataclass(slots=True)
class Ceremony:
    """One run of the key ceremony, with the five folders that it writes to.

    In the lab each folder is a separate volume, so that each host can mount only the files that it needs.
    """

    root: Path
    ca: Path
    trust: Path
    passphrase: Path
    token: Path
    #: One line for each key, certificate or secret, which says whether it was created or kept.
    log: list[str] = field(default_factory=list, init=False)

    def run(self, now: float) -> list[str]:
        """Create the missing files; return `log`, one line for each key, certificate or secret.

        Raises:
            CeremonyError: a folder is missing, a key does not match its certificate, or a required file is lost.
            KeyFileError: a file is malformed, or its passphrase is wrong.
        """
        for folder in (self.root, self.ca, self.trust, self.passphrase, self.token):
            if not folder.is_dir():
                raise CeremonyError(f"{folder}: expected a folder")
        self._secret(self.token / "admin.token", "admin token")
        root = self._root(now)
        self._issuing(root, now)
        pem = root.certificate.public_bytes(Encoding.PEM)
        anchor = self.trust / "root.pem"
        self._make("trust anchor", anchor.exists() and anchor.read_bytes() == pem, lambda: atomic_write(anchor, pem))
        return self.log

    def _make(self, what: str, there: bool, make: Callable[[], None]) -> None:
        if not there:
            make()
        self.log.append(f"{what}: {'kept' if there else 'made'}")

    def _secret(self, path: Path, what: str) -> bytes:
        self._make(what, path.exists(), lambda: atomic_write(path, secrets.token_urlsafe(32).encode() + b"\n", 0o600))
        return path.read_bytes().strip()

    def _root(self, now: float) -> Issuer:
        key_file, certificate_file = self.root / "root.key.pem", self.root / "root.pem"
        anchored = (self.trust / "root.pem").exists()
        if anchored and not (key_file.exists() and certificate_file.exists()):
            raise CeremonyError(
                f"{self.trust / 'root.pem'} is trusted, but {self.root} lacks its key or certificate: "
                "remove the volumes of the earlier lab (`docker compose --profile '*' down -v --remove-orphans`)"
            )
        passphrase = self._secret(self.root / "passphrase", "root passphrase")

        def make() -> None:
            key = new_key()
            write_private_key(key_file, key, passphrase)
            certificate = issue_root(key, "firstbyte lab root", now)
            atomic_write(certificate_file, certificate.public_bytes(Encoding.PEM))

        self._make("root", certificate_file.exists(), make)
        certificate = load_certificate(certificate_file)
        key = load_private_key(key_file, passphrase)
        if key.public_key() != certificate.public_key():
            raise CeremonyError(f"{key_file} is not the key of {certificate_file}")
        return Issuer(certificate, key, ())

    def _issuing(self, root: Issuer, now: float) -> None:
        certificate_file, passphrase_file = self.ca / ISSUING_CERTIFICATE, self.passphrase / "passphrase"
        if certificate_file.exists() and not passphrase_file.exists():
            raise CeremonyError(f"{self.ca} has an issuing key, but {passphrase_file} is missing")
        passphrase = self._secret(passphrase_file, "issuing passphrase")

        def make() -> None:
            key = new_key()
            write_private_key(self.ca / ISSUING_KEY, key, passphrase)
            certificate = issue_intermediate(root, key.public_key(), "firstbyte lab issuing CA 1", now)
            atomic_write(certificate_file, certificate.public_bytes(Encoding.PEM))

        self._make("issuing CA", certificate_file.exists(), make)
        issuing = load_issuer(self.ca, passphrase_file)
        if issuing.certificate.issuer != root.certificate.subject:
            raise CeremonyError(f"{certificate_file} was not issued by {self.root / 'root.pem'}")
        issuing.certificate.verify_directly_issued_by(root.certificate)
