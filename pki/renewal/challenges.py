"""What a service answers while the CA looks whether a name is its own (http-01, RFC 8555 section 8.3)."""


class Challenges:
    """Key authorizations by token."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def put(self, token: str, answer: str | None) -> None:
        """Answer *token* from now on, or (None) no more."""
        if answer is None:
            self._answers.pop(token, None)
        else:
            self._answers[token] = answer

    def answer(self, token: str) -> str | None:
        """Return what to answer on ``/.well-known/acme-challenge/<token>``; None is 404."""
        return self._answers.get(token)
