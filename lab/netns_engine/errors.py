"""Errors of a lab and of what runs it.  Each is one clear line and an exit code of the command line."""


class LabError(Exception):
    """Base class: something is wrong with the lab, or with the runtime below it."""

    #: Exit code of the command line (1: a check failed, 2: usage, 3: no runtime or lab not up).
    exit_code = 3


class EngineError(LabError):
    """The runtime cannot do this: it is missing, too old, forbidden on this machine, or it refused."""


class LabDownError(LabError):
    """The lab, or one of its hosts, is not running."""


class UnknownHostError(LabError):
    """The compose file has no such host."""

    exit_code = 2

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown host {name!r}: expected one of {', '.join(known)}")
        self.name, self.known = name, known
