"""Key-exchange group of a TLS server's connection, read from the server's handshake message.

The `ssl` module reports the group only from Python 3.15 on.  In earlier versions, OpenSSL passes each handshake message
to a callback of the context; ServerHello (RFC 8446 section 4.1.3) or ServerKeyExchange (RFC 8422 section 5.4) contains
the group.
"""

import _ssl
import ssl
import weakref
from typing import Any

#: Named groups (IANA, "TLS Supported Groups").
NAMES = {
    23: "secp256r1", 24: "secp384r1", 25: "secp521r1", 29: "x25519", 30: "x448", 256: "ffdhe2048", 257: "ffdhe3072",
    4587: "SecP256r1MLKEM768", 4588: "X25519MLKEM768", 4589: "SecP384r1MLKEM1024",
}  # fmt: skip
HANDSHAKE, SERVER_HELLO, SERVER_KEY_EXCHANGE = 22, 2, 12
_KEY_SHARE, _NAMED_CURVE = 51, 3


def group_in(message: bytes) -> int | None:
    """Return the number of the group that a server's handshake message selects, or None if it selects no group."""
    body = memoryview(message)[4:]
    try:
        if message[0] == SERVER_KEY_EXCHANGE:
            return int.from_bytes(body[1:3], "big") if body[0] == _NAMED_CURVE else None
        at = 35 + body[34]  # position after version, random and session id
        at += 5  # position after cipher suite, compression method and length of the extensions
        while at + 4 <= len(body):
            kind, size = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
            if kind == _KEY_SHARE and size >= 2:
                return int.from_bytes(body[at + 4 : at + 6], "big")
            at += 4 + size
    except IndexError:
        pass
    return None


class Groups:
    """Key-exchange groups of all open connections of the watched TLS contexts."""

    def __init__(self) -> None:
        self._groups: weakref.WeakKeyDictionary[ssl.SSLObject, int] = weakref.WeakKeyDictionary()

    def watch(self, context: ssl.SSLContext) -> None:
        """Watch *context*, and all contexts to which its SNI callback switches connections."""
        if hasattr(ssl.SSLObject, "group"):
            return
        self._observe(context)
        switch: Any = context.sni_callback
        if switch is None:
            return

        def and_watch(connection: Any, name: str | None, outer: ssl.SSLContext) -> int | None:
            result: int | None = switch(connection, name, outer)
            self._observe(connection.context)
            connection.context = connection.context  # assigning the context installs its message callback
            return result

        context.sni_callback = and_watch

    def of(self, connection: ssl.SSLObject) -> str | None:
        """Return the name of the group of *connection*; None for a resumed TLS 1.2 session (no key exchange)."""
        official: Any = getattr(connection, "group", None)
        if official is not None:
            name: str | None = official()
            return name
        number = self._groups.get(connection)
        return None if number is None else NAMES.get(number, str(number))

    def _observe(self, context: ssl.SSLContext) -> None:
        # Call the setter of the base class: the setter in `ssl` wraps the callback in conversions that take
        # microseconds per record.
        _ssl._SSLContext._msg_callback.__set__(context, self._message)  # type: ignore[attr-defined]  # noqa: SLF001 - exists since Python 3.8

    def _message(
        self, connection: ssl.SSLObject, direction: str, _version: int, kind: int, message: int, data: bytes
    ) -> None:
        if kind == HANDSHAKE and direction == "write" and message in {SERVER_HELLO, SERVER_KEY_EXCHANGE}:
            group = group_in(data)
            if group is not None:
                self._groups[connection] = group
