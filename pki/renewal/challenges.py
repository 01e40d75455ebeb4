"""Answers to the CA's http-01 challenges (RFC 8555 section 8.3)."""


class Challenges:
    """Key authorizations by token."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def put(self, token: str, answer: str | None) -> None:
        """Answer requests for *token* with this text; None stops answering."""
        if answer is None:
            self._answers.pop(token, None)
        else:
            self._answers[token] = answer

    def answer(self, token: str) -> str | None:
        """Return the answer for ``/.well-known/acme-challenge/<token>``; None means 404."""
        return self._answers.get(token)
