"""Read-only web page about the lab: running hosts, certificates close to expiry, and the cost of requests.

`track`, `state`, `snapshot` and `alarms` are the sans-IO core.  `poll` polls the hosts, `server` and `feed` serve
browsers, and `page/` has the files of the page.
"""

from console.hosts import ConsoleError, Host, Hosts, HostsFileError
from console.prometheus import ExpositionError, Scrape, parse
from console.state import State
from console.track import Sample

__all__ = [
    "ConsoleError",
    "ExpositionError",
    "Host",
    "Hosts",
    "HostsFileError",
    "Sample",
    "Scrape",
    "State",
    "parse",
]
