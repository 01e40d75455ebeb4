"""One query to a name server, and the checks that detect a forged reply (RFC 5452); sans-IO.

A reply must repeat the ID, the question with the random case of its letters (0x20), and the client cookie (RFC 7873).
If only the case differs or an expected cookie is missing, either the reply is forged or the server does not support
the feature. `Sent.read` then raises `SuspectError`, and the caller sends the query again over TCP, where an attacker
outside the path cannot forge a reply.
"""

import random
from dataclasses import dataclass

from dnsmessage import Message, MismatchError, Name, RemoteError, decode_reply, encode_query, question_end
from dnsmessage.options import CLIENT_COOKIE, COOKIE, MAX_COOKIE, MIN_COOKIE, encode_option
from resolver.servers import Known

_random = random.SystemRandom()


class SuspectError(RemoteError):
    """A reply has the right ID and question, but the case differs or an expected cookie is missing."""


@dataclass(frozen=True, slots=True)
class Received:
    """A reply that passed the checks."""

    message: Message
    #: Whether the server repeated the case of the question.
    copied_case: bool
    #: The server cookie; empty if the server sent none.
    server_cookie: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """A query as sent, the query with its name in the original case, and the cookie that the reply must contain."""

    wire: bytes
    plain: bytes
    client_cookie: bytes
    #: Whether the server has sent cookies before.
    expects_cookie: bool

    def read(self, received: bytes, *, trusted: bool = False) -> Received:
        """Decode a reply; the names in it have the case of the original question.

        Args:
            received: the datagram, or the message received over TCP.
            trusted: whether the reply came over TCP, so that another case or a missing cookie is accepted.

        Raises:
            MismatchError: this is not the reply to the query, or its cookie is wrong; keep waiting.
            SuspectError: the reply may be forged; ask again over TCP.
            RemoteError: the reply is malformed.
        """
        end = question_end(self.wire)
        copied = received[12:end] == self.wire[12:end]
        if copied:
            received = received[:12] + self.plain[12:end] + received[end:]
        copied = copied or len(received) == 12  # an error without a question, as some servers without EDNS send
        message = decode_reply(self.plain, received)
        options = message.edns.options if message.edns is not None else ()
        cookie = next((data for code, data in options if code == COOKIE), b"")
        if cookie == self.client_cookie:
            cookie = b""  # some servers without cookie support repeat the query's option
        elif cookie and (cookie[:CLIENT_COOKIE] != self.client_cookie or not MIN_COOKIE <= len(cookie) <= MAX_COOKIE):
            raise MismatchError("a reply with another cookie")
        if not trusted and (not copied or (self.expects_cookie and not cookie)):
            raise SuspectError("a reply without the cookie" if copied else "a reply with the question in another case")
        return Received(message, copied, cookie[CLIENT_COOKIE:])


def query(qname: Name, qtype: int, known: Known, *, edns: bool, mixed_case: bool) -> Sent:
    """Return a query with a random ID.

    Args:
        qname: the name.
        qtype: the record type.
        known: what has been recorded about the server; the first query also stores a new client cookie there.
        edns: whether to send an OPT record, with a cookie.
        mixed_case: whether to randomise the case of the name, unless the server is known not to preserve it in replies.
    """
    option = b""
    if edns:
        known.client_cookie = known.client_cookie or _random.randbytes(CLIENT_COOKIE)
        option = encode_option(COOKIE, known.client_cookie + known.server_cookie)
    plain = encode_query(_random.getrandbits(16), qname, qtype, edns=edns, options=option)
    wire = plain
    if mixed_case and known.copies_case:
        end = 12 + len(qname.wire)
        wire = plain[:12] + _mixed(qname.wire) + plain[end:]
    return Sent(wire, plain, known.client_cookie if edns else b"", edns and bool(known.server_cookie))


def _mixed(wire: bytes) -> bytes:
    """Return the name in random case, in wire form; length bytes (at most 63) are not letters and do not change."""
    bits = _random.getrandbits(len(wire))
    return bytes(byte ^ (bits >> at & 1) << 5 if 0x41 <= byte & 0xDF <= 0x5A else byte for at, byte in enumerate(wire))
