"""Certificate renewal drills: each injects faults under steady load, and has a negative control that must fail.

Each drill is an `experiments.Experiment`, which ``firstbyte drill NAME`` runs and a page in ``docs/drills`` explains.
"""

from typing import Any

from drills.broken_material import BrokenMaterial
from drills.ca_outage import CaOutage
from drills.clock_skew import ClockSkew
from drills.leaf_expiry import LeafExpiry
from drills.renewal_under_load import RenewalUnderLoad
from drills.revoke_client import RevokeClient
from drills.year import Year
from experiments import Experiment

#: All drills, in the order of the drill catalogue: D1, D2, D3, D8, D11, D14, and the year.
DRILLS: tuple[type[Experiment[Any]], ...] = (
    LeafExpiry,
    RenewalUnderLoad,
    BrokenMaterial,
    CaOutage,
    RevokeClient,
    ClockSkew,
    Year,
)

__all__ = [
    "DRILLS",
    "BrokenMaterial",
    "CaOutage",
    "ClockSkew",
    "LeafExpiry",
    "RenewalUnderLoad",
    "RevokeClient",
    "Year",
]
