"""Exceptions of the `wan` package."""


class WanError(Exception):
    """Base class of all exceptions of this package."""


class SettingError(WanError):
    """An invalid key or value in the links file or in an admin request."""

    def __init__(self, key: str, expected: str, got: object) -> None:
        super().__init__(f"expected {expected}, got {got!r}")
        #: The invalid key, or "" if the error does not concern a single key.
        self.key = key
        self.expected, self.got = expected, got


class LinksFileError(WanError):
    """The links file cannot be read or is invalid; the message starts with FILE:LINE."""


class UnknownLinkError(WanError):
    """The network has no link between the two regions."""


class TunError(WanError):
    """The TUN device cannot be opened."""
