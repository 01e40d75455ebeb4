"""Exceptions of the `authority` package."""


class AuthorityError(Exception):
    """Base class of all exceptions in `authority`."""


class BadCSRError(AuthorityError):
    """A certificate signing request is malformed, has an invalid signature, or contains a weak key."""


class KeyFileError(AuthorityError):
    """A key or certificate file is missing or malformed, or its passphrase is wrong."""
