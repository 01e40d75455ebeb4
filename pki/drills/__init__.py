"""Renewal drills: steady load, a named fault, a verdict, and a control that must fail (DRILLS in the design)."""

from drills.registry import DRILLS, Drill, UnknownDrillError, find

__all__ = ["DRILLS", "Drill", "UnknownDrillError", "find"]
