"""Anti-replay nonces (RFC 8555 section 6.5)."""

import secrets
from dataclasses import dataclass, field

from acme_server import problems

#: Maximum number of unused nonces.  Above this limit the oldest nonce is discarded; a client that uses it receives
#: badNonce and retries.
MAX_NONCES = 20_000


@dataclass(slots=True)
class Nonces:
    """Unused nonces, each accepted once."""

    _good: dict[str, None] = field(default_factory=dict)

    def new(self) -> str:
        """Return a new nonce."""
        nonce = secrets.token_urlsafe(16)
        self._good[nonce] = None
        if len(self._good) > MAX_NONCES:
            del self._good[next(iter(self._good))]
        return nonce

    def use(self, nonce: str) -> None:
        """Accept *nonce* once; raise the problem badNonce if it is unknown or already used."""
        if nonce not in self._good:
            raise problems.bad_nonce("this nonce is unknown or already used: retry with the nonce in this response")
        del self._good[nonce]
