"""Stateless server cookies, which show that a client's source address is not forged (RFC 7873, RFC 9018).

The caller passes the time, in seconds since 1970.
"""

import hmac
import ipaddress
import struct

from dnsmessage.options import CLIENT_COOKIE

#: Age at which a cookie is replaced, maximum age, and maximum clock difference between servers, in seconds (RFC 9018
#: section 4.3).
RENEW, LIFETIME, SKEW = 1800, 3600, 300
#: Size of a secret, in bytes.
SECRET = 16
_MASK = (1 << 64) - 1
_VERSION = b"\1\0\0\0"


def server_cookie(client_cookie: bytes, client: str, secret: bytes, now: float) -> bytes:
    """Return a new server cookie for *client* (an IP address): version, time, and a keyed hash."""
    head = _VERSION + struct.pack("!I", int(now) & 0xFFFFFFFF)
    return head + siphash(secret, client_cookie + head + ipaddress.ip_address(client).packed)


def is_valid(cookie: bytes, client: str, secret: bytes, now: float) -> bool:
    """Return whether *cookie* (client and server part) was issued to *client* and has not expired."""
    return _age(cookie, now) <= LIFETIME and _authentic(cookie, client, secret)


def renewed(cookie: bytes, client: str, secret: bytes, now: float) -> bytes:
    """Return *cookie* (client and server part) if it is valid and recent, otherwise with a new server part."""
    if _age(cookie, now) <= RENEW and _authentic(cookie, client, secret):
        return cookie
    client_cookie = cookie[:CLIENT_COOKIE]
    return client_cookie + server_cookie(client_cookie, client, secret, now)


def _age(cookie: bytes, now: float) -> float:
    """Return the age in seconds; infinite if the cookie has another format or is from the future."""
    if len(cookie) != CLIENT_COOKIE + 16 or cookie[8:9] != _VERSION[:1]:
        return float("inf")
    age = (int(now) - int.from_bytes(cookie[12:16], "big") + 2**31) % 2**32 - 2**31  # serial arithmetic (RFC 1982)
    return age if age >= -SKEW else float("inf")


def _authentic(cookie: bytes, client: str, secret: bytes) -> bool:
    return hmac.compare_digest(siphash(secret, cookie[:16] + ipaddress.ip_address(client).packed), cookie[16:])


def siphash(key: bytes, data: bytes) -> bytes:
    """Return the SipHash-2-4 of *data* under a key of 16 bytes (Aumasson and Bernstein, 2012)."""
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = data + bytes(7 - len(data) % 8) + bytes((len(data) & 0xFF,))
    words = (*struct.unpack(f"<{len(padded) // 8}Q", padded), None)
    for word in words:
        d ^= word or 0
        c ^= 0xFF if word is None else 0
        for _ in range(4 if word is None else 2):
            a = (a + b) & _MASK
            b = (b << 13 & _MASK | b >> 51) ^ a
            a = a << 32 & _MASK | a >> 32
            c = (c + d) & _MASK
            d = (d << 16 & _MASK | d >> 48) ^ c
            a = (a + d) & _MASK
            d = (d << 21 & _MASK | d >> 43) ^ a
            c = (c + b) & _MASK
            b = (b << 17 & _MASK | b >> 47) ^ c
            c = c << 32 & _MASK | c >> 32
        a ^= word or 0
    return struct.pack("<Q", a ^ b ^ c ^ d)
