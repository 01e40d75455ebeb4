"""Wide-area network emulator: a user-space router on a TUN device that delays, paces, drops and corrupts packets.

`link`, `damage`, `drops` and `network` are the sans-IO core.  `links` parses the links file, `router` moves packets
between the core and the device, and `admin` and `captures` implement the admin API.
"""

from wan.errors import LinksFileError, SettingError, TunError, UnknownLinkError, WanError
from wan.link import Departure, Link
from wan.links import LinksFile, load, parse
from wan.network import Network
from wan.settings import LinkSettings

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
