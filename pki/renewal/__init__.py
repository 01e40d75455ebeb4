"""Certificate renewal for services: ACME client, renewal schedule, and hot reload into running servers.

A failed renewal is never fatal: the service keeps using its last valid certificate, and reports the failure in its
health checks and metrics.
"""

from renewal.agent import Agent
from renewal.challenge_server import answer_challenges
from renewal.client import AcmeClient
from renewal.credentials import Credentials, Reload
from renewal.errors import AccountError, AcmeError, PairError, RenewalError
from renewal.rehearsal import RehearsalAgent
from renewal.revocation import Revocations
from renewal.schedule import renewal_time, retry_delay
from renewal.settings import Settings, add_arguments, additional, from_args

__all__ = [
    "AccountError",
    "AcmeClient",
    "AcmeError",
    "Agent",
    "Credentials",
    "PairError",
    "RehearsalAgent",
    "Reload",
    "RenewalError",
    "Revocations",
    "Settings",
    "add_arguments",
    "additional",
    "answer_challenges",
    "from_args",
    "renewal_time",
    "retry_delay",
]
