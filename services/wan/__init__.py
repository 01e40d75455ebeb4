"""The wide-area network of the lab: a user-space router on a TUN device that delays, paces, loses, damages and copies packets.

`link`, `damage`, `drops` and `network` are the sans-IO core, `links` reads the declaration, `router` moves the packets, `admin` lets the
links be changed and watched while they run.
"""

from wan.link import Departure, Link
from wan.links import LinksFile, load, parse
from wan.network import Network
from wan.settings import LinkSettings, LinksFileError, SettingError, TunError, UnknownLinkError, WanError

__all__ = [
    "Departure",
    "Link",
    "LinkSettings",
    "LinksFile",
    "LinksFileError",
    "Network",
    "SettingError",
    "TunError",
    "UnknownLinkError",
    "WanError",
    "load",
    "parse",
]
