"""Places that are the same on every host of the lab: the admin port, and files below /srv (ARCHITECTURE, "Files of a host")."""

import os
from pathlib import Path

#: Where each service serves /metrics, /health and /admin.
ADMIN_PORT = 9900
#: The bearer token that /admin requires.
ADMIN_TOKEN = Path("/srv/token/admin.token")
#: The root certificate of the lab's CA (PEM).
TRUST_ANCHOR = Path("/srv/trust/root.pem")
#: The hosts by name, region and role.
HOSTS_FILE = Path("/srv/etc/hosts.toml")
#: Runs of scenarios and drills.
RESULTS = Path("/srv/results")

#: First two octets of every address, unless the environment variable FIRSTBYTE_PREFIX says otherwise (.env.example).
DEFAULT_PREFIX = "198.19"
PREFIX_VARIABLE = "FIRSTBYTE_PREFIX"


def lab_address(host: str) -> str:
    """Return the address of a host from its last two octets, such as ``20.10``."""
    return f"{os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX}.{host}"
