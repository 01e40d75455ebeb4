"""HTTP server that answers only http-01 challenges (RFC 8555 section 8.3), for services that have no HTTP server."""

from collections.abc import Callable

from telemetry import AdminError, Request
from telemetry.admin import AdminServer, Response


async def answer_challenges(at: tuple[str, int], answer: Callable[[str], str | None]) -> AdminServer:
    """Answer http-01 challenges at the address *at* until the returned server is closed.

    Args:
        at: host and port to listen on; the CA connects to port 80.
        answer: returns the key authorization for a token; None if the token is unknown.

    Raises:
        OSError: the address cannot be bound; the error's `filename` contains the address.
    """

    def challenge(request: Request) -> Response:
        found = answer(request.params["token"])
        if found is None:
            raise AdminError(404, "no such challenge")
        return Response(found.encode(), "application/octet-stream")

    server = AdminServer()
    server.route("GET", "/.well-known/acme-challenge/{token}", challenge)
    try:
        host, port = await server.start(*at)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{at[0]}:{at[1]}") from None
    print(f"listening on {host}:{port} (http)", flush=True)
    return server
