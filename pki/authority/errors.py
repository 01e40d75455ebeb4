"""The errors of this package."""


class AuthorityError(Exception):
    """Base of this package's errors."""


class BadCSRError(AuthorityError):
    """A certificate request is malformed, not signed by its own key, or for a weak key."""


class KeyFileError(AuthorityError):
    """A key or certificate file is missing or malformed, or its passphrase is wrong."""
