"""The errors of this package."""


class WanError(Exception):
    """Base of every error of this package."""


class SettingError(WanError):
    """A key or value that is not allowed, in the links file or in an admin request."""

    def __init__(self, key: str, expected: str, got: object) -> None:
        super().__init__(f"expected {expected}, got {got!r}")
        #: The key at fault; "" when the error concerns no single key.
        self.key = key
        self.expected, self.got = expected, got


class LinksFileError(WanError):
    """The links file is unusable; the message starts with FILE:LINE."""


class UnknownLinkError(WanError):
    """There is no link between these regions."""


class TunError(WanError):
    """The TUN device cannot be opened."""
