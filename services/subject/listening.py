"""The TCP ports of this network namespace that accept connections from other hosts (proc_net_tcp(5))."""

from pathlib import Path

from hostfiles.layout import ADMIN_PORT

#: Files with the namespace's TCP sockets, for IPv4 and IPv6; a server on `::` also accepts IPv4.
FILES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: The state LISTEN, and the IPv4 and IPv6 loopback addresses, as the kernel writes them.
_LISTEN = "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000")


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
            if line.split()[3] == _LISTEN and address not in _LOOPBACK:
                found.add(int(port, 16))
    return sorted(found - {admin})
