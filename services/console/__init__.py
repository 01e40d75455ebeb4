"""A read-only page about the lab: what is up, what is about to expire, what requests cost.

`track`, `state`, `snapshot` and `alarms` are the sans-IO core, `poll` asks the hosts, `server` and `feed` serve
browsers, and `page/` is the page.
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
