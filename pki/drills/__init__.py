"""Renewal drills: steady load, a named fault, a verdict, and a control that must fail (DRILLS in the design).

Each is an `experiments.Experiment`; ``firstbyte drill NAME`` conducts it.
"""

from typing import Any

from drills.renewal_under_load import RenewalUnderLoad
from experiments import Experiment

#: In the order of the catalogue.
DRILLS: tuple[type[Experiment[Any]], ...] = (RenewalUnderLoad,)

__all__ = ["DRILLS", "RenewalUnderLoad"]
