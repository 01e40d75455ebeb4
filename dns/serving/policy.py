"""Policy that name server and resolver apply to every query: access control, rate limit, cookies, server identity.

`Policy.guard` wraps a server's handler. It refuses clients outside ``--allow`` (with the reason, RFC 8914), answers
``version.bind`` and ``id.server`` in class CHAOS (RFC 4892), adds cookies (RFC 7873) and the server's name (NSID, RFC
5001) to responses, and limits the rate of responses over UDP. It uses no sockets.
"""

import ipaddress
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dnsmessage import encode_opt, error_response, question_end, rdtypes, tsig
from dnsmessage.message import (
    AA,
    BADCOOKIE,
    CD,
    FORMERR,
    HEADER,
    NXDOMAIN,
    PAYLOAD,
    PLAIN_UDP,
    QR,
    RD,
    REFUSED,
    TC,
)
from dnsmessage.options import (
    CLIENT_COOKIE,
    COOKIE,
    MAX_COOKIE,
    MIN_COOKIE,
    NSID,
    ExtendedError,
    encode_option,
    extended_error,
)
from serving.batch import Client
from serving.connections import Handler, Reply, Transport
from serving.cookies import is_valid, renewed
from serving.later import Later
from serving.rate_limit import RateLimit, Verdict
from serving.settings import Settings
from telemetry import Telemetry

CHAOS = 3
#: Names in class CHAOS for the server's identity (RFC 4892) and for its software version.
_IDENTITY, _VERSION = (b"\2id\6server\0", b"\x08hostname\4bind\0"), (b"\7version\4bind\0", b"\7version\6server\0")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Properties of a query that the policy uses."""

    #: Offset of the first byte after the question; 0 if the query has no question.
    end: int
    #: Maximum size of a response over UDP, in bytes.
    limit: int = PLAIN_UDP
    cookie: bytes | None = None
    nsid: bool = False
    #: Whether the query has a valid server cookie, which rules out a forged source address.
    proved: bool = False


class Policy:
    """Applies `Settings` to the queries of one server."""

    def __init__(
        self, settings: Settings, telemetry: Telemetry, flags: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a policy.

        Args:
            settings: access list, rate limit, cookies and identity.
            telemetry: counters, fault switches, and the clock for cookies.
            flags: header flags of every response of this server.
            now: returns the monotonic time in seconds, for rate limiting.
        """
        self.settings, self._telemetry, self._flags, self._now = settings, telemetry, flags, now
        self._limit = RateLimit(settings.rate, settings.slip) if settings.rate else None
        #: ``resign(query, reply)`` signs a truncated reply to a query that is signed with TSIG; None without TSIG keys.
        self.resign: Callable[[bytes, bytes], bytes] | None = None
        self._texts = dict.fromkeys(_IDENTITY, settings.identity) | dict.fromkeys(_VERSION, settings.version)
        self._count = telemetry.metrics.counter(
            f"firstbyte_{telemetry.service}_policy_total", "Queries refused, answered or limited by policy", "action"
        )

    @property
    def per_query(self) -> bool:
        """Whether the policy must see every query; if so, the listener must not send prebuilt answers by itself."""
        return bool(self.settings.allow or self._limit)

    def guard(self, handler: Handler) -> Handler:
        """Return a handler that applies this policy and calls *handler*."""

        def handle(wire: bytes, client: Client, transport: Transport) -> Reply | Awaitable[Reply]:
            if len(wire) < HEADER.size or wire[2] & 0x80:
                return handler(wire, client, transport)
            if self.settings.allow and not self._allowed(client[0]):
                self._count.inc(action="refused")
                return self._error(wire, REFUSED, extended_error(ExtendedError.PROHIBITED, "not for this network"))
            seen = self._look(wire, client[0])
            if seen is None:
                return error_response(wire, FORMERR, self._flags)
            reply: Reply | Awaitable[Reply] = None
            if wire[seen.end - 2 : seen.end] == b"\0\3":
                reply = self._chaos(wire, seen.end)
            elif self.settings.require_cookies and transport == "udp" and seen.cookie is not None and not seen.proved:
                self._count.inc(action="badcookie")
                reply = error_response(wire, BADCOOKIE, self._flags)
            if reply is None:
                reply = handler(wire, client, transport)
            if isinstance(reply, Awaitable):
                return Later(reply, lambda ready: self._finish(ready, wire, seen, client[0], transport))
            return self._finish(reply, wire, seen, client[0], transport)

        return handle

    def _allowed(self, client: str) -> bool:
        address = ipaddress.ip_address(client)
        return any(address in network for network in self.settings.allow)

    def _error(self, wire: bytes, rcode: int, option: bytes) -> Reply:
        reply = error_response(wire, rcode, self._flags)
        return _with_options(reply, option, len(reply) + len(option), 0)

    def _look(self, wire: bytes, client: str) -> _Seen | None:
        """Read the options of a query whose OPT record follows the question; None if its cookie is malformed."""
        try:
            end = question_end(wire)
        except IndexError:
            return _Seen(0)
        at = end + 11
        if wire[4:10] != b"\0\1\0\0\0\0" or wire[end : end + 3] != b"\0\0\x29" or len(wire) < at:
            return _Seen(end)
        cookie, nsid, last = None, False, at + int.from_bytes(wire[at - 2 : at], "big")
        while at + 4 <= last <= len(wire):
            code, size = struct.unpack_from("!HH", wire, at)
            at += 4
            if code == NSID:
                nsid = True
            elif code == COOKIE and cookie is None:
                if size != CLIENT_COOKIE and not MIN_COOKIE <= size <= MAX_COOKIE:
                    return None
                cookie = wire[at : at + size]
            at += size
        payload = int.from_bytes(wire[end + 3 : end + 5], "big")
        proved = cookie is not None and is_valid(cookie, client, self.settings.cookie_secret, self._wall())
        return _Seen(end, min(max(payload, PLAIN_UDP), PAYLOAD), cookie, nsid, proved)

    def _wall(self) -> float:
        return self._telemetry.clock.time()

    def _chaos(self, wire: bytes, end: int) -> bytes | None:
        """Return the answer to a question about the server itself; None if the server does not disclose it."""
        faults = self._telemetry.faults
        text = self._texts.get(wire[12 : end - 4].lower(), "")
        if not text or wire[end - 4 : end - 2] not in {b"\0\x10", b"\0\xff"} or wire[2] & 0x78:
            return None  # `wire[2] & 0x78` is nonzero for opcodes other than QUERY
        if faults.any_on and faults.hit("drop_answers"):
            return b""
        self._count.inc(action="chaos")
        flags = QR | AA | int.from_bytes(wire[2:4], "big") & (RD | CD) | self._flags
        data = bytes((len(text.encode()),)) + text.encode()
        record = b"\xc0\x0c" + struct.pack("!HHIH", rdtypes.TXT, CHAOS, 0, len(data)) + data
        opt = encode_opt() if wire[11] else b""
        return HEADER.pack(int.from_bytes(wire[:2], "big"), flags, 1, 1, 0, bool(opt)) + wire[12:end] + record + opt

    def _finish(self, reply: Reply, wire: bytes, seen: _Seen, client: str, transport: Transport) -> Reply:
        """Return the reply with the requested options; truncated or None if the rate limit applies."""
        if not reply:
            return None
        if not isinstance(reply, (bytes, bytearray)):
            return reply  # a zone transfer, which has several messages, is sent unchanged
        options = b""
        if seen.cookie is not None:
            cookie = renewed(seen.cookie, client, self.settings.cookie_secret, self._wall())
            options = encode_option(COOKIE, cookie)
        if seen.nsid and self.settings.identity:
            options += encode_option(NSID, self.settings.identity.encode())
        if options:
            reply = _with_options(reply, options, seen.limit if transport == "udp" else 0xFFFF, seen.end)
        if self._limit is None or transport != "udp" or seen.proved:
            return reply
        verdict = self._limit.judge(client, _kind(reply, wire[12 : seen.end].lower()), self._now())
        if verdict is Verdict.SEND:
            return reply
        self._count.inc(action="truncated" if verdict is Verdict.TRUNCATE else "dropped")
        if verdict is not Verdict.TRUNCATE:
            return None
        if self.resign is None:
            return _truncated(reply, seen.end)
        plain, signature = tsig.split(bytes(reply))
        cut = _truncated(plain, seen.end)
        return cut if signature is None else self.resign(wire, cut)


def _kind(reply: bytes | bytearray, question: bytes) -> bytes:
    """Return the rate-limit key of a response: the question for answers, otherwise the kind of failure."""
    rcode = reply[3] & 0xF
    if rcode:
        return b"nxdomain" if rcode == NXDOMAIN else b"error"
    return question if reply[6:8] != b"\0\0" else b"empty"


def _opt_at(reply: bytes | bytearray) -> int:
    """Return the offset of the OPT record at the end of our response *reply*; `len(reply)` if there is none."""
    start = encode_opt()[:5]
    at = reply.rfind(start, HEADER.size)
    while at >= 0 and at + 11 + int.from_bytes(reply[at + 9 : at + 11], "big") != len(reply):
        at = reply.rfind(start, HEADER.size, at + 4)
    return at if at >= 0 else len(reply)


def _with_options(reply: bytes | bytearray, options: bytes, limit: int, end: int) -> bytes | bytearray:
    """Return *reply* with more EDNS options, truncated if it exceeds *limit*; unchanged without an OPT record."""
    at = _opt_at(reply)
    if at == len(reply):
        return reply
    size = int.from_bytes(reply[at + 9 : at + 11], "big") + len(options)
    whole = b"".join((reply[: at + 9], size.to_bytes(2, "big"), reply[at + 11 :], options))
    return whole if len(whole) <= limit else _truncated(whole, end)


def _truncated(reply: bytes | bytearray, end: int) -> bytes:
    """Return header, question and OPT record of *reply*, with the TC flag set."""
    opt = bytes(reply[_opt_at(reply) :])
    flags = int.from_bytes(reply[2:4], "big") | TC
    return HEADER.pack(int.from_bytes(reply[:2], "big"), flags, bool(end), 0, 0, bool(opt)) + bytes(reply[12:end]) + opt
