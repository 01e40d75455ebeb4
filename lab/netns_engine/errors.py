"""Errors of a lab and of its runtimes, each with a one-line message and an exit code for the command line."""


class LabError(Exception):
    """Base class of all errors of a lab or its runtime."""

    #: Exit code of the command line (1: a check failed, 2: usage, 3: no runtime or lab not up).
    exit_code = 3


class EngineError(LabError):
    """The runtime cannot run the lab: it is missing, too old, not permitted on this machine, or reported an error."""


class LabDownError(LabError):
    """The lab, or one of its hosts, is not running."""


class UnknownHostError(LabError):
    """The host is not in the compose file."""

    exit_code = 2

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown host {name!r}: expected one of {', '.join(known)}")
        self.name, self.known = name, known
