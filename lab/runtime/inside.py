"""Access to the lab from inside (``docker compose run lab``): admin ports over the network, no container engine.

Hosts cannot be killed or paused from inside the lab; experiments report the parts that they skip for this reason.
"""

import tomllib
from pathlib import Path
from typing import Any

from hostfiles.layout import ADMIN_PORT, HOSTS_FILE
from runtime.errors import LabDownError, LabError, RefusedError, UnknownHostError
from telemetry.call import CallError, call


class InsideLab:
    """Sends requests to the hosts' admin ports from inside the lab."""

    def __init__(self, hosts_file: Path = HOSTS_FILE) -> None:
        try:
            document = tomllib.loads(hosts_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise LabError(f"{hosts_file}: {error.strerror}") from None
        self.addresses: dict[str, str] = {host["name"]: host["address"] for host in document["host"]}

    @staticmethod
    def is_here() -> bool:
        """Return whether this process runs inside the lab."""
        return HOSTS_FILE.exists()

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; raises the same errors as `DockerLab.call`."""
        address = self.addresses.get(host)
        if address is None:
            raise UnknownHostError(host, sorted(self.addresses))
        try:
            return call(f"http://{address}:{ADMIN_PORT}", method, path, body, timeout=timeout)
        except CallError as error:
            if error.status == 0:
                raise LabDownError(f"{host} does not answer ({error.message}); is the lab up?") from None
            raise RefusedError(f"{host}: {error.message}") from None
