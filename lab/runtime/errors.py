"""Errors between the command line and a host, each with a one-line message and an exit code."""

from netns_engine.errors import EngineError, LabDownError, LabError, UnknownHostError

__all__ = [
    "EngineError",
    "LabDownError",
    "LabError",
    "NotHereError",
    "RefusedError",
    "UnknownHostError",
    "UsageError",
]


class RefusedError(LabError):
    """The host refused the request: the object does not exist or the value is invalid."""

    exit_code = 2


class UsageError(LabError):
    """The arguments are incomplete or contradictory in a way that the argument parser cannot detect."""

    exit_code = 2


class NotHereError(LabError):
    """The request only works on the machine that runs the lab; inside the lab there is no engine."""
