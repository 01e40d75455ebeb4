"""The lab's network: a bridge in the supervisor's network namespace and a veth pair to each host (rtnetlink(7)).

The machine's own network namespace is not involved: its routes, addresses and firewall stay as they are, and several labs,
including one on Docker, can use the same addresses at the same time.
"""

import contextlib
import errno
import ipaddress
import itertools
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

BRIDGE = "internet"
DEVICE = "eth0"
#: No IPv6 (a non-goal); ports 53, 80 and 443 need no capability.
EVERYWHERE = (
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
)
#: Characters of a host's name in a device name: IFNAMSIZ minus the final zero and the number that `Switch` appends.
_STEM = 9


class Switch:
    """The bridge, in the network namespace of the process that creates it."""

    def __init__(self) -> None:
        self._netlink: Any = IPRoute()
        self._numbers = itertools.count(1)
        _bring_up(self._netlink, "lo")
        self._netlink.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
        self._bridge = self._netlink.link_lookup(ifname=BRIDGE)[0]
        self._netlink.link("set", index=self._bridge, state="up")

    def connect(self, name: str, namespace: int, address: str | None) -> str:
        """Connect the network *namespace*, as its `DEVICE`, to the bridge; return the name of our end of the veth pair."""
        ours = f"{name[:_STEM]}.{next(self._numbers)}"
        peer: dict[str, Any] = {"ifname": DEVICE, "net_ns_fd": namespace}
        if address is not None:
            peer["address"] = hardware_address(address)
        self._netlink.link("add", ifname=ours, kind="veth", peer=peer)
        index = self._netlink.link_lookup(ifname=ours)[0]
        self._netlink.link("set", index=index, master=self._bridge, state="up")
        return ours

    def cut(self, wire: str) -> None:
        """Remove a veth pair unless the kernel has done so already, together with the namespace at its other end."""
        for index in self._netlink.link_lookup(ifname=wire):
            with contextlib.suppress(NetlinkError):
                self._netlink.link("del", index=index)


def hardware_address(address: str) -> str:
    """Return the MAC address for an IPv4 address, as Docker derives it.

    Neighbours cache MAC addresses for a minute (ARP): with a random one a restarted host would be unreachable that long.
    """
    return "02:42:" + ":".join(f"{octet:02x}" for octet in ipaddress.IPv4Address(address).packed)


def configure(interface: ipaddress.IPv4Interface | None) -> None:
    """Bring up loopback, and `DEVICE` with its address, in this process's network namespace."""
    with IPRoute() as netlink:
        _bring_up(netlink, "lo")
        if interface is not None:
            index = _bring_up(netlink, DEVICE)
            netlink.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)


def set_sysctls(sysctls: tuple[tuple[str, str], ...], *, known: bool = False) -> None:
    """Write the settings that every host has, and *sysctls*; *known*: once more for `DEVICE`, which now exists.

    A device keeps the ``default`` settings of the time when it was created.

    Raises:
        OSError: /proc/sys is read-only, or the kernel has no such setting.
    """
    for key, value in (*EVERYWHERE, *sysctls):
        named = key.replace(".default.", f".{DEVICE}.") if known and ".default." in key else key
        path = Path("/proc/sys", *named.split("."))
        try:
            path.write_text(value, encoding="ascii")
        except OSError as error:
            if "ipv6" in key and error.errno == errno.ENOENT:  # a kernel without IPv6
                continue
            raise OSError(error.errno, f"sysctl {named}={value}: {error.strerror}") from None


def _bring_up(netlink: Any, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="up")
    return index
