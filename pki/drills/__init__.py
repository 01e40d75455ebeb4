"""Renewal drills: steady load, a named fault, a verdict, and a control that must fail.

Each is an `experiments.Experiment`; ``firstbyte drill NAME`` runs it.  One page per drill in ``docs/drills``.
"""

from typing import Any

from drills.broken_material import BrokenMaterial
from drills.ca_outage import CaOutage
from drills.clock_skew import ClockSkew
from drills.leaf_expiry import LeafExpiry
from drills.renewal_under_load import RenewalUnderLoad
from drills.year import Year
from experiments import Experiment

#: In the order of the catalogue: D1, D2, D3, D8, D14, and the year.
DRILLS: tuple[type[Experiment[Any]], ...] = (
    LeafExpiry,
    RenewalUnderLoad,
    BrokenMaterial,
    CaOutage,
    ClockSkew,
    Year,
)

__all__ = ["DRILLS", "BrokenMaterial", "CaOutage", "ClockSkew", "LeafExpiry", "RenewalUnderLoad", "Year"]
