"""Container health probe: requests /health of the service.

The probe imports neither an HTTP client nor asyncio, and therefore takes only 20 ms, mostly to start the interpreter.
"""

import socket
import sys

from hostfiles.layout import ADMIN_PORT


def main() -> int:
    """Print the response or the error; return 0 if ``GET /health`` on this host's admin port has status 200."""
    try:
        with socket.create_connection(("127.0.0.1", ADMIN_PORT), 2.0) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while data := sock.recv(65536):
                answer += data
    except OSError as error:
        print(error)
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode(errors="replace").strip())
    return 0 if head.startswith(b"HTTP/1.1 200 ") else 1


if __name__ == "__main__":
    sys.exit(main())
