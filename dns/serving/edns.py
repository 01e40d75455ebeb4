"""EDNS options that depend on the transport: time-outs of TCP connections (RFC 7828) and padding (RFC 7830, RFC 8467).

An option is added to the handler's reply only if the query contains the same option.
"""

from dnsmessage.message import MAX_TCP, find_opt
from dnsmessage.options import KEEPALIVE, PADDING, encode_option

#: Replies are padded to a multiple of this size, in bytes (RFC 8467 section 4.1).
BLOCK = 468


def adapt(query: bytes, reply: bytes | bytearray, *, idle: float, encrypted: bool) -> bytes | bytearray:
    """Return *reply* with the options that *query* asks for.

    Args:
        query: the client's message.
        reply: the handler's reply; returned unchanged unless its last record is the OPT record.
        idle: seconds after which an idle connection is closed; 0 on a transport for which RFC 7828 is not defined.
        encrypted: whether the transport encrypts the reply; padding is useless otherwise.
    """
    asked = _options(query)
    if not asked & {KEEPALIVE, PADDING}:
        return reply
    at = find_opt(reply)
    if at is None or at + 11 + int.from_bytes(reply[at + 9 : at + 11], "big") != len(reply):
        return reply
    added = b""
    if KEEPALIVE in asked and idle:
        added = encode_option(KEEPALIVE, min(round(idle * 10), 65_535).to_bytes(2, "big"))
    if PADDING in asked and encrypted:
        size = -(len(reply) + len(added) + 4) % BLOCK
        size = min(size, MAX_TCP - len(reply) - len(added) - 4)
        if size >= 0:
            added += encode_option(PADDING, bytes(size))
    length = len(reply) - at - 11 + len(added)
    return b"".join((reply[: at + 9], length.to_bytes(2, "big"), reply[at + 11 :], added))


def _options(query: bytes) -> set[int]:
    """Return the codes of the EDNS options in *query*; an empty set if it has none or is malformed."""
    at = find_opt(query)
    if at is None:
        return set()
    end = at + 11 + int.from_bytes(query[at + 9 : at + 11], "big")
    codes, at = set(), at + 11
    while at + 4 <= min(end, len(query)):
        codes.add(int.from_bytes(query[at : at + 2], "big"))
        at += 4 + int.from_bytes(query[at + 2 : at + 4], "big")
    return codes
