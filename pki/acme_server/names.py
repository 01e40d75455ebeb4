"""Validation of the DNS names in orders: host names (RFC 1123, RFC 5890) within the issuer's name constraints."""

import re

import idna

from acme_server import problems
from authority import Issuer

_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")


def read_name(value: object, issuer: Issuer) -> str:
    """Return *value* in lower case; raise `Problem` unless it is a host name that *issuer* may certify."""
    if not isinstance(value, str) or not _NAME.fullmatch(name := value.lower()):
        raise problems.rejected_identifier(f"expected a host name, got {value!r}"[:200])
    for label in name.split("."):
        if label[2:4] == "--" and not _is_a_label(label):
            raise problems.rejected_identifier(f"expected labels that IDNA 2008 permits (RFC 5891), got {label!r}")
    if not issuer.permits(name):
        raise problems.rejected_identifier(f"{name}: the name constraints of this CA do not permit it")
    return name


def read_identifier(value: object, issuer: Issuer) -> str:
    """Return the DNS identifier *value* of an order in lower case; it may begin with a wildcard label (``*.``).

    Raises:
        Problem: *value* is not a valid DNS name, or *issuer* is not permitted to certify this name.
    """
    wildcard = "*." if isinstance(value, str) and value.startswith("*.") else ""
    return wildcard + read_name(value.removeprefix("*.") if isinstance(value, str) else value, issuer)


def is_wildcard(name: str) -> bool:
    """Return whether the first label of *name* is a wildcard."""
    return name.startswith("*.")


def _is_a_label(label: str) -> bool:
    """Return whether *label*, which has hyphens in its third and fourth position, is a valid A-label (RFC 5890)."""
    try:
        return idna.alabel(idna.ulabel(label)) == label.encode()
    except (idna.IDNAError, UnicodeError):
        return False
