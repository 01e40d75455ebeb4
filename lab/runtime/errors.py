"""Errors between the command line and a host.  Each is one clear line and an exit code."""

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
    """A host answered and refused the request: the object does not exist, or the value is not valid."""

    exit_code = 2


class UsageError(LabError):
    """The arguments are incomplete or contradict each other in a way that the parser cannot see."""

    exit_code = 2


class NotHereError(LabError):
    """The request needs the machine that runs the lab; inside the lab there is no engine."""
