"""Certificate profiles, which define the content of leaves and are read from a TOML file (draft-ietf-acme-profiles).

Each table defines the profile of the same name.  The first profile applies to orders that name no profile:

    [peer]
    description = "TLS servers that are also mTLS clients"
    usages = ["serverAuth", "clientAuth"]
    lifetime = 3600     # maximum, in seconds; the default is the CA's `--lifetime`
    revocation = true   # whether leaves contain the URLs of the CRL and the OCSP responder
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from authority.errors import AuthorityError
from hostfiles.toml import TomlFile

#: Extended key usages of leaves, keyed by name.
USAGES = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}
#: Bounds of a profile's lifetime, in seconds.
MIN_LIFETIME, MAX_LIFETIME = 5, 90 * 86400
#: Pattern of profile names, and maximum length of descriptions; the ACME directory lists names and descriptions.
NAME, MAX_DESCRIPTION = re.compile(r"[a-z][a-z0-9-]{0,31}"), 200


class ProfilesError(AuthorityError):
    """The file of profiles cannot be read or is invalid."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of leaf certificate."""

    name: str
    #: One sentence that helps people to choose a profile.
    description: str
    #: Extended key usages, as names in `USAGES`.
    usages: tuple[str, ...] = ("serverAuth", "clientAuth")
    #: Maximum lifetime in seconds; None means the CA's configured lifetime.
    lifetime: float | None = None
    #: Whether leaves contain the URLs of the CRL and the OCSP responder; short-lived certificates do not need them.
    revocation: bool = True

    @property
    def usage_oids(self) -> list[ObjectIdentifier]:
        """The extended key usages as object identifiers."""
        return [USAGES[each] for each in self.usages]


#: Default profile if the CA has no file of profiles.
PEER = Profile("peer", "TLS servers that are also mTLS clients")


class _ProfilesFile(TomlFile):
    kind: ClassVar[str] = "file of certificate profiles"
    error: ClassVar[type[Exception]] = ProfilesError

    def __init__(self, text: str, name: str) -> None:
        self.known = tuple(re.findall(r"^\s*\[\s*([^\[\]]+?)\s*\]", text, re.MULTILINE))  # type: ignore[misc]  # other subclasses define a class constant; here, the table names depend on the file
        super().__init__(text, name)

    def profiles(self) -> dict[str, Profile]:
        """Return the validated profiles, keyed by name, in the order of the file."""
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
    """Return the profiles in the file at *path*, keyed by name; the default is first. If *path* is None, return `PEER`.

    Raises:
        ProfilesError: the file is unreadable or invalid; the message gives the file, the line and what was expected.
    """
    if path is None:
        return {PEER.name: PEER}
    return _ProfilesFile.load(path).profiles()


def read_profiles(text: str, name: str) -> dict[str, Profile]:
    """Return the profiles in *text*, or raise `ProfilesError`; *name* is the file name in error messages."""
    return _ProfilesFile(text, name).profiles()
