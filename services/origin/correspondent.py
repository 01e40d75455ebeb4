"""Mailbox client, ``python -m origin.correspondent``: publishes keys, and sends and receives encrypted letters.

For `firstbyte encryption`, ``views`` sends one text in four ways: as an item over plain HTTP and over HTTPS, as a note,
and as a letter.  For each way, it reports the message sent and the text received.
"""

import argparse
import http.client
import json
import os
import secrets
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hostfiles.layout import TRUST_ANCHOR
from origin.sealing import SealError, fingerprint, open_, seal, trusted

#: Time limit for each request, in seconds.
TIMEOUT = 10.0
OCTETS = "application/octet-stream"


class CorrespondentError(Exception):
    """The server refused a request or did not respond."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and the client's port number on the connection."""

    body: bytes
    port: int


class Server:
    """The mailbox server behind the edge; each request opens a new connection."""

    def __init__(self, url: str, trust: Path | None) -> None:
        """Create a client.

        Args:
            url: ``https://HOST`` or ``http://HOST``, with an optional port.
            trust: PEM file with root certificates; None uses the system's trust store.

        Raises:
            CorrespondentError: the URL is invalid or the file cannot be read.
        """
        self._parts = urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise CorrespondentError(f"expected https://HOST or http://HOST, got {url!r}")
        try:
            self._context = ssl.create_default_context(cafile=trust)
        except OSError as error:
            raise CorrespondentError(f"{trust}: expected root certificates in PEM: {error}") from None

    def ask(self, method: str, path: str, body: bytes | None = None, media_type: str = OCTETS) -> Answer:
        """Send a request.

        Raises:
            CorrespondentError: there was no response, or its status was not 2xx.
        """
        host, port = self._parts.hostname or "", self._parts.port
        link: http.client.HTTPConnection
        if self._parts.scheme == "https":
            link = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._context)
        else:
            link = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            link.connect()
            local = int(link.sock.getsockname()[1])
            link.request(method, path, body, {"Content-Type": media_type} if body is not None else {})
            response = link.getresponse()
            found = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CorrespondentError(f"{method} {self._parts.geturl()}{path}: {error}") from None
        finally:
            link.close()
        if response.status >= 300:
            raise CorrespondentError(f"{method} {path}: {response.status}: {found[:300].decode(errors='replace')}")
        return Answer(found, local)


def send(server: Server, mailbox: str, expected: str, text: bytes) -> tuple[str, bytes, Answer]:
    """Encrypt *text* for the owner of *mailbox*, and send the letter.

    Returns:
        The letter's id, its ciphertext, and the server's response.

    Raises:
        SealError: the published key does not have the fingerprint *expected*; nothing was sent.
    """
    recipient = trusted(server.ask("GET", f"/mailbox/{mailbox}/key").body, expected)
    letter = secrets.token_hex(8)
    sealed = seal(text, recipient, mailbox, letter)
    return letter, sealed, server.ask("PUT", f"/mailbox/{mailbox}/letters/{letter}", sealed)


def publish(server: Server, mailbox: str, private: X25519PrivateKey) -> str:
    """Publish the public key of *private* for *mailbox*; return the key's fingerprint, which senders compare."""
    public = private.public_key().public_bytes_raw()
    server.ask("PUT", f"/mailbox/{mailbox}/key", public)
    return fingerprint(public)


def receive(server: Server, mailbox: str, private: X25519PrivateKey) -> dict[str, bytes]:
    """Return the decrypted letters in *mailbox*, keyed by letter id.

    Raises:
        SealError: a letter cannot be decrypted.
    """
    names = json.loads(server.ask("GET", f"/mailbox/{mailbox}/letters").body)["letters"]
    letters = {name: server.ask("GET", f"/mailbox/{mailbox}/letters/{name}").body for name in names}
    return {name: open_(sealed, private, mailbox, name) for name, sealed in letters.items()}


def views(host: str, trust: Path | None, text: str) -> dict[str, Any]:
    """Send *text* in four ways, each time with the name of the way appended, so that the four messages differ.

    Returns:
        ``{"fingerprint", "ways": [{"way", "text", "path", "port", "sent", "reads"}]}``: the bytes
        sent and the bytes that the recipient reads, in hexadecimal, and the client's port number on the connection.
    """
    plain, secure, name = Server(f"http://{host}", None), Server(f"https://{host}", trust), f"v-{secrets.token_hex(4)}"
    private = X25519PrivateKey.generate()
    known = publish(secure, name, private)
    ways = []

    def add(way: str, path: str, answer: Answer, sent: bytes, reads: bytes) -> None:
        row = {"way": way, "text": marked(way), "path": path, "port": answer.port}
        ways.append({**row, "sent": sent.hex(), "reads": reads.hex()})

    def marked(way: str) -> str:
        return f"{text} ({way})"

    for way, server, path, media_type in (
        ("http", plain, f"/items/{name}-http", "application/json"),
        ("https", secure, f"/items/{name}-https", "application/json"),
        ("note", secure, f"/notes/{name}", "text/plain"),
    ):
        body = marked(way).encode() if way == "note" else json.dumps({"name": name, "text": marked(way)}).encode()
        answer = server.ask("PUT", path, body, media_type)
        add(way, path, answer, body, server.ask("GET", path).body)
    letter, sealed, answer = send(secure, name, known, marked("letter").encode())
    reads = receive(secure, name, private)[letter]
    add("letter", f"/mailbox/{name}/letters/{letter}", answer, sealed, reads)
    return {"fingerprint": known, "ways": ways}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0, or 1 after printing a one-line error."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except (CorrespondentError, SealError, OSError, ValueError) as error:
        named = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"correspondent: error: {named}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    if args.command == "keygen":
        private = X25519PrivateKey.generate()
        descriptor = os.open(args.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private.private_bytes_raw())
        print(fingerprint(private.public_key().public_bytes_raw()))
        return 0
    if args.command == "views":
        print(json.dumps(views(args.host, args.trust, args.text)))
        return 0
    server = Server(args.url, args.trust)
    if args.command == "send":
        print(send(server, args.name, args.fingerprint, sys.stdin.buffer.read())[0])
        return 0
    private = X25519PrivateKey.from_private_bytes(args.key.read_bytes())
    if args.command == "publish":
        print(publish(server, args.name, private))
        return 0
    for letter, text in receive(server, args.name, private).items():
        print(f"{letter}: {text.decode(errors='replace')}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m origin.correspondent",
        description="Letters that only their recipient can read.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m origin.correspondent keygen --key bob.key\n"
        "  echo hello | python -m origin.correspondent send bob --fingerprint '9f86 d081 …'",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (
        ("keygen", "make a private key, and print the fingerprint of its public key"),
        ("publish", "publish the public key of a mailbox"),
        ("send", "encrypt standard input for the owner of a mailbox"),
        ("receive", "print the letters in a mailbox"),
        ("views", "send one text in four ways, as JSON for `firstbyte encryption`"),
    ):
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument("--trust", type=Path, default=TRUST_ANCHOR, metavar="FILE", help="root certificates (PEM)")
        if name in {"publish", "send", "receive"}:
            one.add_argument("name", help="of the mailbox")
            one.add_argument("--url", default="https://www.example.com", help="of the server")
        if name in {"keygen", "publish", "receive"}:
            one.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key")
        if name == "send":
            one.add_argument("--fingerprint", required=True, help="of the recipient's key, learnt in another way")
        if name == "views":
            one.add_argument("--host", default="www.example.com")
            one.add_argument("text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
