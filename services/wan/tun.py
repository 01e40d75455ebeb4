"""Access to an existing TUN device (Linux, Documentation/networking/tuntap.rst); each read returns one packet.

The host's entry script creates the device for the service's user, so this module needs no capability.  It never creates
a device; a missing device is an error.
"""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from wan.errors import TunError

DEVICE = Path("/dev/net/tun")
#: Constants from linux/if_tun.h and linux/sockios.h.  IFF_NO_PI omits the four-byte prefix in front of each packet.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCGIFMTU, IFF_UP = 0x8913, 0x8921, 0x1
#: Maximum length of a device name in bytes: IFNAMSIZ without the terminating zero.
MAX_NAME = 15


def open_tun(name: str) -> int:
    """Open the TUN device *name* and return a non-blocking file descriptor.

    Raises:
        TunError: the kernel has no TUN support, or the device is missing, down, in use, not a TUN device, or owned by
            another user.
    """
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise TunError(f"expected a TUN device name of at most {MAX_NAME} characters, got {name!r}")
    make = f"ip tuntap add dev {name} mode tun user {os.getuid()} && ip link set {name} up"
    try:
        socket.if_nametoindex(name)
    except OSError:
        raise TunError(f"expected a TUN device {name}, found none: create it with `{make}`") from None
    if not _interface(name, SIOCGIFFLAGS) & IFF_UP:
        raise TunError(f"expected the device {name} to be up, but it is down: `ip link set {name} up`")
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fix = f"load the kernel module 'tun', and allow user {os.getuid()} to read and write the device"
        raise TunError(f"cannot open {DEVICE}: {error.strerror}: {fix}") from None
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        reasons = {
            errno.EPERM: f"it belongs to another user (we are {os.getuid()})",
            errno.EBUSY: "another process has opened it",
            errno.EINVAL: "it is not a TUN device",
        }
        why = reasons.get(error.errno or 0, error.strerror)
        raise TunError(f"cannot open the TUN device {name}: {why}; create one with `{make}`") from None
    return fd


def mtu(name: str) -> int:
    """Return the MTU of the device in bytes, which is the maximum length of a packet."""
    return _interface(name, SIOCGIFMTU)


def dropped(name: str) -> int:
    """Return the number of packets that the kernel dropped because the device's queue (``txqueuelen``) was full."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        device, colon, counts = line.partition(":")
        if colon and device.strip() == name:
            return int(counts.split()[11])
    return 0


def _interface(name: str, request: int) -> int:
    """Return the flags or the MTU of a network interface, as *request* selects (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        answer = fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()))
    number: int = struct.unpack_from("H" if request == SIOCGIFFLAGS else "i", answer, 16)[0]
    return number
