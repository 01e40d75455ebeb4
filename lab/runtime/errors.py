"""What can go wrong between the command line and a host.  Each error is one clear line and an exit code."""


class LabError(Exception):
    """Base: something about the lab, or the engine below it."""

    #: Exit code of the command line (DESIGN: 1 check failed, 2 usage, 3 no runtime or lab not up).
    exit_code = 3


class EngineError(LabError):
    """The runtime can not: no Docker engine answers, it is too old, this machine or this user may not, or it refused."""


class LabDownError(LabError):
    """The lab, or the host that was asked for, is not running."""


class RefusedError(LabError):
    """A host answered and refused the request: what was asked for does not exist, or is not what it expects."""

    exit_code = 2


class UsageError(LabError):
    """What was asked for is incomplete or contradicts itself; the parser could not see it."""

    exit_code = 2


class UnknownHostError(LabError):
    """The topology has no such host."""

    exit_code = 2

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown host {name!r}: expected one of {', '.join(known)}")
        self.name, self.known = name, known


class NotHereError(LabError):
    """This can not be done from where we run (inside the lab there is no engine)."""
