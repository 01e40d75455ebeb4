"""Exceptions of the `authority` package."""


class AuthorityError(Exception):
    """Base class of all exceptions in `authority`."""


class BadCSRError(AuthorityError):
    """A certificate signing request is malformed, has an invalid signature, or contains a weak key."""


class WeakKeyError(AuthorityError):
    """A public key has an unsupported type or size, or a known weakness."""


class StoreError(AuthorityError):
    """The database cannot be read or written: it is locked, damaged, or its disk is full."""


class KeyFileError(AuthorityError):
    """A key or certificate file is missing or malformed, or its passphrase is wrong."""
