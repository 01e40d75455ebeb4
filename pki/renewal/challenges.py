"""Responses to the CA's http-01 challenges (RFC 8555 section 8.3)."""


class Challenges:
    """The http-01 response bodies (key authorizations) that a service must currently serve, by token."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def put(self, token: str, answer: str | None) -> None:
        """Set the response body for *token* to *answer*; None removes the token."""
        if answer is None:
            self._answers.pop(token, None)
        else:
            self._answers[token] = answer

    def answer(self, token: str) -> str | None:
        """Return the response body for ``/.well-known/acme-challenge/<token>``, or None for a 404."""
        return self._answers.get(token)
