"""An ACME server (RFC 8555): directory, nonces, accounts, orders, http-01, finalize, certificate chains, revocation.

Not implemented: External Account Binding, pre-authorization, wildcard names, and the challenges dns-01 and tls-alpn-01.
"""

from acme_server.jws import SignedRequest, read_jws, thumbprint
from acme_server.problems import Problem

__all__ = ["Problem", "SignedRequest", "read_jws", "thumbprint"]
