"""Scenarios: each tests a claim of the textbook against a prediction, and has a negative control that must fail.

Each scenario is an `experiments.Experiment` in its own file; ``firstbyte run NAME`` runs it.
"""

from typing import Any

from experiments import Experiment
from scenarios.congestion import Congestion
from scenarios.dns_outage import DnsOutage
from scenarios.dns_privacy import DnsPrivacy
from scenarios.encryption import Encryption
from scenarios.flow_control import FlowControl
from scenarios.geography import Geography
from scenarios.handshake import Handshake
from scenarios.impostor import ImpostorScenario
from scenarios.integrity import Integrity
from scenarios.keepalive_race import KeepaliveRace
from scenarios.limits import Limits
from scenarios.omission import Omission
from scenarios.pool import Pool
from scenarios.propagation import Propagation
from scenarios.quic import Quic
from scenarios.reliable_stream import ReliableStream
from scenarios.resolution import Resolution
from scenarios.slow_start import SlowStart
from scenarios.snapshots import Snapshots
from scenarios.time_wait import TimeWait
from scenarios.time_wait_why import TimeWaitWhy
from scenarios.ttl import Ttl

#: All scenarios in reading order: names, connections, identity, and other topics.
SCENARIOS: tuple[type[Experiment[Any]], ...] = (
    Resolution, Ttl, Propagation, DnsOutage, DnsPrivacy, Handshake, Geography, SlowStart, FlowControl,
    Congestion, ReliableStream,
    Omission, Limits,
    TimeWait, TimeWaitWhy, Pool, KeepaliveRace, Integrity, ImpostorScenario,
    Encryption, Snapshots,
    Quic,
)  # fmt: skip

__all__ = ["SCENARIOS"]
