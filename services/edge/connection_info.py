"""Header lines that describe a client's connection to origins: client address, TLS parameters and certificate."""

import asyncio
import re
from functools import cache
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9.*_-]{1,253}")


def describe(
    transport: asyncio.BaseTransport, address: str, scheme: str, *, mutual: bool
) -> tuple[bytes, tuple[str, bool] | None, int]:
    """Return the header lines, the TLS state and the client certificate's serial number of a connection.

    Returns:
        A tuple: the header lines sent to origins; the TLS version and whether the session was resumed, or None without
        TLS; and the serial number of the client's certificate, or 0 if the listener is not *mutual*.
    """
    suffix = b"%b\r\nx-forwarded-proto: %b\r\n" % (address.encode(), scheme.encode())
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return suffix, None, 0
    version, cipher, resumed = tls.version() or "?", tls.cipher(), bool(tls.session_reused)
    suffix += _description(version, cipher[0] if cipher else "?", resumed)
    serial = 0
    if mutual:
        certificate: Any = tls.getpeercert() or {}
        suffix += b"x-forwarded-client-cert: %b\r\n" % _identity(certificate)
        serial = int(certificate.get("serialNumber", "0"), 16)
    return suffix, (version, resumed), serial


@cache
def _description(version: str, cipher: str, resumed: bool) -> bytes:
    described = f"version={version}; cipher={cipher}; resumed={'yes' if resumed else 'no'}"
    return f"x-forwarded-tls: {described}\r\n".encode()


def _identity(certificate: dict[str, Any]) -> bytes:
    """Return the names in the client's certificate in Envoy's format: ``DNS=a.example.com;DNS=…``."""
    alternatives = certificate.get("subjectAltName", ())
    return ";".join(f"DNS={name}" for kind, name in alternatives if kind == "DNS" and _NAME.fullmatch(name)).encode()
