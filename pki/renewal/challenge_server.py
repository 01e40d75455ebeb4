"""A listener that answers http-01 challenges only (RFC 8555 section 8.3), for services without an HTTP server."""

from collections.abc import Callable

from telemetry import AdminError, Request
from telemetry.admin import AdminServer, Response


async def answer_challenges(at: tuple[str, int], answer: Callable[[str], str | None]) -> AdminServer:
    """Answer http-01 challenges at the address *at* until the returned server is closed.

    Args:
        at: host and port; the CA asks port 80.
        answer: returns the key authorization of a token, None if the token is unknown.

    Raises:
        OSError: the address cannot be bound; the error's file name is the address.
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
