"""Places that are the same on every host of the lab: the admin port, and files below /srv (ARCHITECTURE, "Files of a host")."""

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
