"""How a service gets its certificate and keeps it fresh: ACME client, schedule, hot reload into a running server.

A failed renewal is never fatal: the last good pair goes on serving, and health and metrics say so.
"""

from renewal.agent import Agent
from renewal.client import AcmeClient, AcmeError
from renewal.credentials import Credentials, Reload
from renewal.material import PairError
from renewal.schedule import renewal_time, retry_delay
from renewal.settings import Settings, add_arguments, from_args, further

__all__ = [
    "AcmeClient",
    "AcmeError",
    "Agent",
    "Credentials",
    "PairError",
    "Reload",
    "Settings",
    "add_arguments",
    "from_args",
    "further",
    "renewal_time",
    "retry_delay",
]
