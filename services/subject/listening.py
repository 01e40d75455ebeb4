"""The TCP ports of this network namespace that accept connections from other hosts (proc_net_tcp(5))."""

import re
from pathlib import Path

from hostfiles.layout import ADMIN_PORT

#: Files with the namespace's TCP sockets, for IPv4 and IPv6; a server on `::` also accepts IPv4.
FILES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: The state LISTEN, as the kernel writes it.
_LISTEN = "0A"
#: Loopback addresses as the kernel writes them: 127.0.0.0/8 (Docker's own resolver is 127.0.0.11) and ::1.
_LOOPBACK = re.compile("[0-9A-F]{6}7F|00000000000000000000000001000000")


def ports(files: tuple[Path, ...] = FILES, admin: int = ADMIN_PORT) -> list[int]:
    """Return the listening ports in ascending order, without loopback and without the *admin* port."""
    found = set()
    for path in files:
        try:
            lines = path.read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # the kernel has no IPv6
            continue
        for line in lines:
            address, _, port = line.split()[1].partition(":")
            if line.split()[3] == _LISTEN and not _LOOPBACK.fullmatch(address):
                found.add(int(port, 16))
    return sorted(found - {admin})
