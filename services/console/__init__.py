"""One read-only page about the lab: what is up, what is about to expire, what it costs.

`state` and `alarms` know (sans-IO), `poll` asks the hosts, `server` and `feed` tell browsers, `page/` is the page.
"""

from console.hosts import ConsoleError, Host, Hosts, HostsFileError
from console.prometheus import ExpositionError, Scrape, parse
from console.state import Sample, State

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
