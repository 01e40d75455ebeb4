"""Lab network: a bridge in the supervisor's network namespace, and a veth pair to each host (rtnetlink(7)).

The machine's own routes, addresses and firewall do not change, because they belong to another network namespace.
Several labs, including one on Docker, can therefore use the same addresses at the same time.
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
#: Sysctls of every host: IPv6 is disabled (a non-goal), and ports such as 53, 80 and 443 need no capability.
EVERYWHERE = (
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
)
#: Maximum number of characters of the host name in a device name: IFNAMSIZ minus the terminating zero and the number
#: that `Switch` appends.
_STEM = 9


class Switch:
    """The lab's bridge, in the network namespace of the process that creates it."""

    def __init__(self) -> None:
        self._netlink: Any = IPRoute()
        self._numbers = itertools.count(1)
        _bring_up(self._netlink, "lo")
        self._netlink.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
        self._bridge = self._netlink.link_lookup(ifname=BRIDGE)[0]
        self._netlink.link("set", index=self._bridge, state="up")

    def connect(self, name: str, namespace: int, address: str | None) -> str:
        """Connect a network namespace to the bridge through a veth pair; return the device name of the bridge's end.

        The end in *namespace* is called `DEVICE`, and its MAC address is derived from *address*.
        """
        ours = f"{name[:_STEM]}.{next(self._numbers)}"
        peer: dict[str, Any] = {"ifname": DEVICE, "net_ns_fd": namespace}
        if address is not None:
            peer["address"] = hardware_address(address)
        self._netlink.link("add", ifname=ours, kind="veth", peer=peer)
        index = self._netlink.link_lookup(ifname=ours)[0]
        self._netlink.link("set", index=index, master=self._bridge, state="up")
        return ours

    def cut(self, wire: str) -> None:
        """Remove a veth pair, unless the kernel has already removed it with the namespace at its other end."""
        for index in self._netlink.link_lookup(ifname=wire):
            with contextlib.suppress(NetlinkError):
                self._netlink.link("del", index=index)


def hardware_address(address: str) -> str:
    """Return a MAC address derived from an IPv4 address, with Docker's method.

    Neighbours cache MAC addresses for one minute (ARP), so with a random address a restarted host would be unreachable
    for that time.
    """
    return "02:42:" + ":".join(f"{octet:02x}" for octet in ipaddress.IPv4Address(address).packed)


def configure(interface: ipaddress.IPv4Interface | None) -> None:
    """Bring up loopback, and `DEVICE` with its address if *interface* is given, in this process's network namespace."""
    with IPRoute() as netlink:
        _bring_up(netlink, "lo")
        if interface is not None:
            index = _bring_up(netlink, DEVICE)
            netlink.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)


def set_sysctls(sysctls: tuple[tuple[str, str], ...], *, known: bool = False) -> None:
    """Write *sysctls* and the sysctls that every host has.

    Args:
        sysctls: (key, value) pairs.
        known: whether `DEVICE` already exists.  If so, keys for the ``default`` device are written for `DEVICE`
            instead, because a device copies the defaults only when it is created.

    Raises:
        OSError: /proc/sys is read-only, or the kernel does not have the setting.
    """
    for key, value in (*EVERYWHERE, *sysctls):
        named = key.replace(".default.", f".{DEVICE}.") if known and ".default." in key else key
        path = Path("/proc/sys", *named.split("."))
        try:
            path.write_text(value, encoding="ascii")
        except OSError as error:
            if "ipv6" in key and error.errno == errno.ENOENT:  # the kernel has no IPv6
                continue
            raise OSError(error.errno, f"sysctl {named}={value}: {error.strerror}") from None


def _bring_up(netlink: Any, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="up")
    return index
