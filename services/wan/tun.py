"""Opening a TUN device that somebody else made (Linux, Documentation/networking/tuntap.rst): one packet per read.

The host's entry creates the device and gives it to the service's user, so nothing here needs a capability.  Nothing is
created: a missing device is an error, never a second one by mistake.
"""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from wan.settings import TunError

DEVICE = Path("/dev/net/tun")
#: linux/if_tun.h and linux/sockios.h.  IFF_NO_PI: packets without the four bytes in front.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCGIFMTU, IFF_UP = 0x8913, 0x8921, 0x1
#: IFNAMSIZ without the closing zero.
MAX_NAME = 15


def open_tun(name: str) -> int:
    """Return a non-blocking descriptor of the TUN device *name*, which exists and is up.

    Raises:
        TunError: the kernel has no TUN, or the device is missing, down, busy, of another kind or somebody else's.
    """
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise TunError(f"expected the name of a TUN device of at most {MAX_NAME} letters, got {name!r}")
    make = f"ip tuntap add dev {name} mode tun user {os.getuid()} && ip link set {name} up"
    try:
        socket.if_nametoindex(name)
    except OSError:
        raise TunError(f"expected the TUN device {name}, got none: make it with `{make}`") from None
    if not _interface(name, SIOCGIFFLAGS) & IFF_UP:
        raise TunError(f"expected the device {name} to be up, got it down: `ip link set {name} up`")
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = (
            f"{error.strerror}: load the kernel module 'tun', and allow user {os.getuid()} to read and write the device"
        )
        raise TunError(f"expected {DEVICE}, got {why}") from None
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        reasons = {
            errno.EPERM: f"one of another user (we are {os.getuid()})",
            errno.EBUSY: "one that another process reads",
            errno.EINVAL: "a device of another kind",
        }
        got = reasons.get(error.errno or 0, error.strerror)
        raise TunError(f"expected the TUN device {name} to be ours, got {got}: `{make}`") from None
    return fd


def mtu(name: str) -> int:
    """Return the device's MTU: no packet read from it is longer."""
    return _interface(name, SIOCGIFMTU)


def dropped(name: str) -> int:
    """Return the packets that the kernel dropped because nobody read them from the device in time (``txqueuelen``)."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        device, colon, counts = line.partition(":")
        if colon and device.strip() == name:
            return int(counts.split()[11])
    return 0


def _interface(name: str, request: int) -> int:
    """Ask the kernel for one number about an interface (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        answer = fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()))
    number: int = struct.unpack_from("H" if request == SIOCGIFFLAGS else "i", answer, 16)[0]
    return number
