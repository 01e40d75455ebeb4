"""Certificate renewal drills: each injects faults under steady load, and has a negative control that must fail.

Each drill is an `experiments.Experiment`, which ``firstbyte drill NAME`` runs and a page in ``docs/drills`` explains.
"""

from typing import Any

from drills.acme_chaos import AcmeChaos
from drills.blind_monitor import BlindMonitor
from drills.broken_material import BrokenMaterial
from drills.ca_outage import CaOutage
from drills.client_auth_gone import ClientAuthGone
from drills.clock_skew import ClockSkew
from drills.intermediate_rollover import IntermediateRollover
from drills.leaf_compromise import LeafCompromise
from drills.leaf_expiry import LeafExpiry
from drills.mass_revocation import MassRevocation
from drills.one_name_fails import OneNameFails
from drills.pool_rotation import PoolRotation
from drills.renewal_storm import RenewalStorm
from drills.renewal_under_load import RenewalUnderLoad
from drills.revocation_data import RevocationData
from drills.revoke_client import RevokeClient
from drills.root_rollover import RootRollover
from drills.subject import TARGETED
from drills.year import Year
from experiments import Experiment

#: All drills, in the order of the drill catalogue.
DRILLS: tuple[type[Experiment[Any]], ...] = (
    LeafExpiry,
    RenewalUnderLoad,
    BrokenMaterial,
    OneNameFails,
    AcmeChaos,
    IntermediateRollover,
    RootRollover,
    CaOutage,
    RenewalStorm,
    RevocationData,
    RevokeClient,
    LeafCompromise,
    ClockSkew,
    PoolRotation,
    BlindMonitor,
    MassRevocation,
    ClientAuthGone,
    Year,
)

__all__ = [
    "DRILLS",
    "TARGETED",
    "AcmeChaos",
    "BlindMonitor",
    "BrokenMaterial",
    "CaOutage",
    "ClientAuthGone",
    "ClockSkew",
    "IntermediateRollover",
    "LeafCompromise",
    "LeafExpiry",
    "MassRevocation",
    "OneNameFails",
    "PoolRotation",
    "RenewalStorm",
    "RenewalUnderLoad",
    "RevocationData",
    "RevokeClient",
    "RootRollover",
    "Year",
]
