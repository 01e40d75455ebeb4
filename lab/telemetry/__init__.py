"""Telemetry shared by all services: metrics, health, faults, a clock, JSON logs and the admin port.

Uses only the standard library, because every import costs start-up time and memory in each of the lab's twenty or so
processes.
"""

from telemetry import log
from telemetry.admin import AdminError, Request, Response
from telemetry.clock import Clock
from telemetry.command import add_arguments, add_workers, endpoint
from telemetry.faults import Fault, Faults, UnknownFaultError
from telemetry.health import Health
from telemetry.metrics import Counter, Gauge, Histogram, Metrics
from telemetry.service import Telemetry

__all__ = [
    "AdminError",
    "Clock",
    "Counter",
    "Fault",
    "Faults",
    "Gauge",
    "Health",
    "Histogram",
    "Metrics",
    "Request",
    "Response",
    "Telemetry",
    "UnknownFaultError",
    "add_arguments",
    "add_workers",
    "endpoint",
    "log",
]
