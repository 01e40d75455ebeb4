"""Responses to the CA's http-01 challenges (RFC 8555 section 8.3)."""

import re
from pathlib import Path

from hostfiles.atomic import atomic_write

#: Valid tokens: unpadded base64url (RFC 8555 section 8.1).  Tokens become file names, so all others are rejected.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Challenges:
    """The http-01 response bodies (key authorizations) that a service must currently serve, keyed by token."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create an empty set; several processes of a service can share the responses in *folder*, if given."""
        self._folder = folder
        self._answers: dict[str, str] = {}

    def put(self, token: str, answer: str | None) -> None:
        """Set the response body for *token* to *answer*; None removes the token."""
        if answer is None:
            self._answers.pop(token, None)
        else:
            self._answers[token] = answer
        if self._folder is None or not _TOKEN.fullmatch(token):
            return
        if answer is None:
            (self._folder / token).unlink(missing_ok=True)
        else:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self._folder / token, answer.encode(), 0o600)

    def answer(self, token: str) -> str | None:
        """Return the response body for ``/.well-known/acme-challenge/<token>``, or None for a 404."""
        found = self._answers.get(token)
        if found is None and self._folder is not None and _TOKEN.fullmatch(token):
            try:
                return (self._folder / token).read_text(encoding="ascii")
            except FileNotFoundError:
                return None
        return found
