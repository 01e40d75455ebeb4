"""Certificate profiles: what the leaves of an order contain, from one TOML file (draft-ietf-acme-profiles).

Each table is a profile; its name is that of the profile.  The first one applies to orders without a profile:

    [peer]
    description = "TLS servers that are also mTLS clients"
    usages = ["serverAuth", "clientAuth"]
    lifetime = 3600     # seconds, at most; without this key the CA's `--lifetime`
    revocation = true   # whether leaves contain the URLs of CRL and OCSP
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from authority.errors import AuthorityError
from hostfiles.toml import TomlFile

#: Extended key usages of leaves, by name.
USAGES = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}
#: Bounds of a profile's lifetime, in seconds.
MIN_LIFETIME, MAX_LIFETIME = 5, 90 * 86400
#: Pattern of names and maximum length of descriptions; both are in the ACME directory.
NAME, MAX_DESCRIPTION = re.compile(r"[a-z][a-z0-9-]{0,31}"), 200


class ProfilesError(AuthorityError):
    """The file of profiles cannot be read or is invalid."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of leaf certificate."""

    name: str
    #: A sentence for people who choose a profile.
    description: str
    #: Names of the extended key usages, in `USAGES`.
    usages: tuple[str, ...] = ("serverAuth", "clientAuth")
    #: Maximum lifetime in seconds; None: the lifetime that the CA is set to.
    lifetime: float | None = None
    #: Whether leaves contain the URLs of CRL and OCSP; short-lived certificates do not need revocation.
    revocation: bool = True

    @property
    def usage_oids(self) -> list[ObjectIdentifier]:
        """The extended key usages as object identifiers."""
        return [USAGES[each] for each in self.usages]


#: Profile of leaves without a file of profiles.
PEER = Profile("peer", "TLS servers that are also mTLS clients")


class _ProfilesFile(TomlFile):
    kind: ClassVar[str] = "file of certificate profiles"
    error: ClassVar[type[Exception]] = ProfilesError

    def __init__(self, text: str, name: str) -> None:
        self.known = tuple(re.findall(r"^\s*\[\s*([^\[\]]+?)\s*\]", text, re.MULTILINE))  # type: ignore[misc]  # each file chooses the names of its tables
        super().__init__(text, name)

    def profiles(self) -> dict[str, Profile]:
        """Return the validated profiles by name, in the order of the file."""
        if not self.tables:
            self.refuse(self.end, "at least one profile, as a table [NAME]", words="none")
        return {name: self._profile(name) for name in self.tables}

    def _profile(self, name: str) -> Profile:
        table = self.tables[name]
        if not NAME.fullmatch(name):
            self.refuse(self.line(name), "a name of lower-case letters, digits and hyphens", name)
        known = ("description", "usages", "lifetime", "revocation")
        for key in table:
            if key not in known:
                self.refuse(self.line(name, key=key), f"one of {', '.join(known)}", key)
        at = {key: self.line(name, key=key) for key in known}
        description = table.get("description")
        if not isinstance(description, str) or not 0 < len(description) <= MAX_DESCRIPTION:
            self.refuse(at["description"], f"description, of 1 to {MAX_DESCRIPTION} characters", description)
        usages = table.get("usages", list(PEER.usages))
        good = isinstance(usages, list) and usages and all(each in USAGES for each in usages)
        if not good or len(set(usages)) != len(usages):
            self.refuse(at["usages"], f"usages, a list of {' and '.join(USAGES)}", usages)
        lifetime = table.get("lifetime")
        if lifetime is not None and (type(lifetime) is not int or not MIN_LIFETIME <= lifetime <= MAX_LIFETIME):
            self.refuse(at["lifetime"], f"lifetime, from {MIN_LIFETIME} to {MAX_LIFETIME} seconds", lifetime)
        revocation = table.get("revocation", True)
        if not isinstance(revocation, bool):
            self.refuse(at["revocation"], "revocation, true or false", revocation)
        return Profile(name, description, tuple(usages), lifetime, revocation)


def load_profiles(path: Path | None) -> dict[str, Profile]:
    """Return the profiles in the file at *path*, by name; the first is the default.  Without a path: `PEER` only.

    Raises:
        ProfilesError: the file cannot be read or is invalid; the message has file, line, and what was expected.
    """
    if path is None:
        return {PEER.name: PEER}
    return _ProfilesFile.load(path).profiles()


def read_profiles(text: str, name: str) -> dict[str, Profile]:
    """Return the profiles in *text*; *name* is the file name in error messages.  Raises `ProfilesError`."""
    return _ProfilesFile(text, name).profiles()
