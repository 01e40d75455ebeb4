"""Standard admin port and file paths of every lab host (see "Files of a host" in ARCHITECTURE.md)."""

import os
from pathlib import Path

#: TCP port of each service's admin server: /metrics, /health and /admin.
ADMIN_PORT = 9900
#: File with the bearer token that /admin requires.
ADMIN_TOKEN = Path("/srv/token/admin.token")
#: Root certificate of the lab's CA (PEM).
TRUST_ANCHOR = Path("/srv/trust/root.pem")
#: TSIG key that authorizes changes of the lab's zones.
TSIG_KEY = Path("/srv/tsig/lab.key")
#: List of all lab hosts with name, region and role.
HOSTS_FILE = Path("/srv/etc/hosts.toml")
#: Directory for the results of scenarios and drills.
RESULTS = Path("/srv/results")

#: First two octets of every lab address; the environment variable FIRSTBYTE_PREFIX overrides it (see .env.example).
DEFAULT_PREFIX = "198.19"
PREFIX_VARIABLE = "FIRSTBYTE_PREFIX"


def lab_address(host: str) -> str:
    """Return the full IPv4 address of the host whose last two octets are *host*, for example ``20.10``."""
    return f"{os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX}.{host}"
