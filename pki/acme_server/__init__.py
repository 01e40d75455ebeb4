"""An ACME server (RFC 8555): directory, nonces, accounts, orders, validation, finalize, chains, revocation.

External Account Binding, pre-authorization and the challenge type tls-alpn-01 are not implemented.
"""

from acme_server.jws import SignedRequest, read_jws, thumbprint
from acme_server.problems import Problem

__all__ = ["Problem", "SignedRequest", "read_jws", "thumbprint"]
