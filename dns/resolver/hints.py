"""Root hints: the name servers that a resolver queries first (RFC 8109), as a master file of NS and A records."""

import ipaddress
from pathlib import Path

from dnsmessage import Name, NameSyntaxError


class HintsError(Exception):
    """The file is not a valid list of root servers; most messages read ``FILE:LINE: expected …, got …``."""


def load_hints(path: Path, *, ipv6: bool = False) -> dict[Name, str]:
    """Return the address of each root server, keyed by name, in file order.

    Args:
        path: master file.
        ipv6: whether servers that have only an IPv6 address are included.

    Raises:
        HintsError: the file is unreadable or malformed, or no root server in it has an address.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HintsError(f"{path}: cannot be read: {error}") from None
    servers: list[str] = []
    addresses: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = [w for w in line.partition(";")[0].split() if w.upper() != "IN"]
        if not words:
            continue
        if len(words) == 4 and words[1].isdecimal():
            del words[1]
        if len(words) != 3 or words[1].upper() not in {"NS", "A", "AAAA"}:
            raise HintsError(f"{path}:{number}: expected NAME TTL NS|A|AAAA VALUE, got {line.strip()!r}")
        owner, rdtype, value = words[0].lower(), words[1].upper(), words[2].lower()
        if rdtype == "NS":
            if owner != ".":
                raise HintsError(f"{path}:{number}: expected NS records of the root, got {owner!r}")
            servers.append(value)
        elif rdtype == "A" or ipv6:
            try:
                address = ipaddress.IPv4Address(value) if rdtype == "A" else ipaddress.IPv6Address(value)
            except ValueError:
                family = "IPv4" if rdtype == "A" else "IPv6"
                raise HintsError(f"{path}:{number}: expected an {family} address, got {value!r}") from None
            if rdtype == "A" or owner not in addresses:
                addresses[owner] = str(address)
    try:
        found = {Name.from_text(server): addresses[server] for server in servers if server in addresses}
    except NameSyntaxError as error:
        raise HintsError(f"{path}: {error}") from None
    if not found:
        family = "" if ipv6 else "IPv4 "
        raise HintsError(f"{path}: expected at least one root server with an {family}address, got none")
    return found
