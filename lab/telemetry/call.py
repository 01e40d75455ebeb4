"""Send one request to an admin port: ``python -m telemetry.call GET /admin/faults``.

On a host of the lab, the token is read from the lab's token file.
"""

import argparse
import http.client
import json
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from hostfiles.layout import ADMIN_PORT, ADMIN_TOKEN


class CallError(Exception):
    """The admin port could not be reached (status 0), or returned an error (its HTTP status)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def call(
    base_url: str, method: str, path: str, body: Any = None, *, token: str | None = None, timeout: float = 10.0
) -> Any:
    """Send one admin request and return the response: parsed JSON, or text or bytes for other types.

    Args:
        base_url: URL of the admin port, for example ``http://198.19.0.254:9900``.
        method: HTTP method.
        path: path, optionally with a query.
        body: sent as JSON unless None.
        token: bearer token; if None, the token is read from the lab's token file, if there is one.
        timeout: timeout in seconds for each network operation.

    Raises:
        CallError: the token file is not readable, there was no response, or its status was not 2xx.
    """
    if token is None:
        token = _token()
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or ADMIN_PORT, timeout=timeout)
    try:
        return ask(connection, method, path, body, token)
    except (OSError, http.client.HTTPException) as error:
        raise CallError(0, f"{base_url}{path}: {error}") from None
    finally:
        connection.close()


def _token() -> str | None:
    """Return the lab's admin token, or None outside the lab."""
    try:
        return ADMIN_TOKEN.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "only this host's own user may read it, as in: firstbyte exec HOST -- python -m telemetry.call …"
        raise CallError(0, f"{ADMIN_TOKEN}: {error.strerror}; {hint}") from None


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any, token: str | None) -> Any:
    """Send one admin request over *connection* and return the response in the same form as `call`.

    Raises:
        CallError: the status was not 2xx.
        OSError, http.client.HTTPException: there was no valid response.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    content, kind = response.read(), response.getheader("Content-Type", "")
    if response.status >= 300:
        try:
            message = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            message = content.decode(errors="replace")[:200]
        raise CallError(response.status, f"{method} {path}: {response.status}: {message}")
    if kind.startswith("application/json"):
        return json.loads(content)
    return content.decode() if kind.startswith("text/") else content


def main(argv: list[str] | None = None) -> int:
    """Send the request and print the response; return 1 if it was an error, 3 if there was no response."""
    parser = argparse.ArgumentParser(
        prog="python -m telemetry.call",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m telemetry.call GET /admin/faults\n"
        """  python -m telemetry.call --url http://198.19.0.254:9900 PUT /admin/links/access/near '{"rtt_ms": 80}'""",
    )
    parser.add_argument("--url", default=f"http://127.0.0.1:{ADMIN_PORT}")
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("method", type=str.upper)
    parser.add_argument("path")
    parser.add_argument("body", nargs="?", type=json.loads)
    args = parser.parse_args(argv)
    try:
        answer = call(args.url, args.method, args.path, args.body, timeout=args.timeout)
    except CallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1 if error.status else 3
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    else:
        print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # restore the default, so that `… | head` ends without a traceback
    sys.exit(main())
