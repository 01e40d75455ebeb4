"""What can be wrong with keys, requests and the authority's own files."""


class AuthorityError(Exception):
    """Base of this package's errors."""


class BadCSRError(AuthorityError):
    """A certificate request that must not be granted: malformed, not signed by its key, or a weak key."""


class KeyFileError(AuthorityError):
    """A key or certificate file that is missing, malformed, or does not open with its passphrase."""
