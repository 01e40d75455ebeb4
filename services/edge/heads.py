"""Parsers that validate request and response heads and prepare them for forwarding (RFC 9110 section 7.6, RFC 9112).

`request_head` and `response_head` are pure functions, so callers may cache their results (`edge.remembered`). One
anchored regular expression validates a complete head. Only a head that does not match is parsed line by line, to find
the reason. Ambiguous input, which another parser could interpret differently, is rejected.
"""

import re
from dataclasses import dataclass

from edge.errors import BadRequestError, BadResponseError

#: Limits of a head: size in bytes, number of fields, and size of the request target in bytes. They are similar to the
#: limits of nginx, Apache and HAProxy.
MAX_HEAD, MAX_FIELDS, MAX_TARGET = 32 * 1024, 100, 8192
#: Hop-by-hop fields (RFC 9110 section 7.6.1), in addition to those that the Connection field lists.
HOP_BY_HOP = frozenset(
    (
        b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization "
        b"te trailer transfer-encoding upgrade"
    ).split()
)
#: Fields that the edge generates or handles itself.
OURS = frozenset({b"via", b"expect", b"forwarded", b"max-forwards"})
#: Idempotent methods, whose requests may be retried (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
VIA = b"1.1 firstbyte-edge"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELDS = rb"((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n){0,%d})\r\n" % MAX_FIELDS
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n" + _FIELDS)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD_LINE = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i)https?://([^/?#]*)([^#]*)")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Framing:
    """Framing of a message body (RFC 9112 section 6)."""

    #: Content-Length in bytes; None if the body is chunked or has no declared length.
    length: int | None = None
    chunked: bool = False


NO_BODY = Framing(0)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Validated request head, ready to be forwarded."""

    method: bytes
    #: Request target in origin form: path and query.
    target: bytes
    #: Path for route matching: without query, percent-decoded, without dot segments and empty segments.
    path: str
    #: Whether the client speaks HTTP/1.1 rather than 1.0.
    modern: bool
    framing: Framing
    #: Whether the connection must be closed after the response.
    close: bool
    #: Whether the client waits for 100 (Continue) before it sends the body.
    expects: bool
    #: Protocol from the Upgrade field, in lower case; empty if there is none.
    upgrade: bytes
    #: Value of Host; empty if an HTTP/1.0 client sent none.
    host: bytes
    #: Remaining hops for TRACE and OPTIONS, from Max-Forwards (RFC 9110 section 7.6.2); None for no limit.
    hops: int | None
    #: Head for the origin: start line, end-to-end fields, and ``x-forwarded-for: `` with the value that the client
    #: sent. The caller appends the client's address and the empty line.
    forward: bytes
    #: The client's X-Forwarded-For value, exactly as at the end of `forward`.
    claimed: bytes = b""
    #: The client's X-Request-ID, for the access log; empty if there is none.
    request_id: bytes = b""
    #: Trace ID from the client's traceparent field (W3C Trace Context), for the access log; empty if there is none.
    trace_id: bytes = b""

    @property
    def idempotent(self) -> bool:
        """Whether the method is idempotent, so that the request may be sent twice."""
        return self.method in IDEMPOTENT

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.framing.chunked or bool(self.framing.length)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Validated response head, ready to be forwarded to a client."""

    status: int
    framing: Framing
    #: Whether the origin keeps its connection open after this response.
    keep_alive: bool
    #: Status line and end-to-end fields, including Via. The caller appends framing, Connection and the empty line.
    forward: bytes
    #: Whether the response has no Date field, so that the proxy must add one (RFC 9110 section 6.6.1).
    dateless: bool
    #: Protocol of a 101 (Switching Protocols) response; empty for any other status.
    upgrade: bytes = b""


def request_head(head: bytes) -> RequestHead:
    """Parse a complete request head, including the final empty line.

    Raises:
        BadRequestError: *head* is invalid; the error has the matching status code.
    """
    match = _REQUEST.fullmatch(head)
    if match is None or len(head) > MAX_HEAD:
        raise why_not_a_request(head)
    method, target, minor, lines = match.groups()
    modern = minor == b"1"
    if method == b"CONNECT":
        raise BadRequestError(405, "CONNECT is not offered: this is not a tunnel")
    if len(target) > MAX_TARGET:
        raise BadRequestError(414, f"expected a target of at most {MAX_TARGET} bytes, got {len(target)}")
    fields = _split(lines)
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (modern and not hosts):
        raise BadRequestError(400, f"expected one Host field, got {len(hosts)}")
    host = hosts[0] if hosts else b""
    if hosts and not _AUTHORITY.fullmatch(host):
        raise BadRequestError(400, f"expected HOST[:PORT] as Host, got {host[:80]!r}")
    target, authority = _origin_form(method, target)
    host = authority or host
    tokens = _tokens(fields)
    claimed = b"".join(value + b", " for name, value in fields if name == b"x-forwarded-for")
    return RequestHead(
        method,
        target,
        normal_path(target),
        modern,
        _request_framing(fields, modern=modern),
        close=b"close" in tokens or (not modern and b"keep-alive" not in tokens),
        expects=_expects(fields, modern=modern),
        upgrade=_upgrade(fields) if modern and b"upgrade" in tokens else b"",
        host=host,
        hops=_hops(method, fields),
        forward=_forward(method, target, host, fields, tokens) + claimed,
        claimed=claimed,
        request_id=next((value for name, value in fields if name == b"x-request-id"), b"")[:128],
        trace_id=next(
            (m[1] for name, value in fields if name == b"traceparent" and (m := _TRACE.fullmatch(value))), b""
        ),
    )


def response_head(head: bytes) -> ResponseHead:
    """Parse a complete response head, including the final empty line.

    Raises:
        BadResponseError: *head* is malformed, or its framing is ambiguous.
    """
    match = _RESPONSE.fullmatch(head)
    if match is None or len(head) > MAX_HEAD:
        raise BadResponseError(_why_not_a_response(head))
    minor, status, reason, lines = match.groups()
    fields = _split(lines)
    tokens = _tokens(fields)
    lengths = {value for name, value in fields if name == b"content-length"}
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or lengths or minor == b"0"):
        raise BadResponseError(f"expected Transfer-Encoding: chunked alone, got {b', '.join(codings)[:80]!r}")
    if lengths and not (len(lengths) == 1 and _is_length(min(lengths))):
        raise BadResponseError(f"expected one Content-Length in digits, got {b', '.join(sorted(lengths))[:80]!r}")
    framing = Framing(int(min(lengths)) if lengths else None, bool(codings))
    named = tokens - {b"content-length"}
    kept = [
        each for each in fields
        if each[0] not in HOP_BY_HOP and each[0] not in named
        and each[0] not in {b"content-length", b"server-timing", b"via"}
    ]  # fmt: skip
    kept.append((b"via", b", ".join([*(value for name, value in fields if name == b"via"), VIA])))
    start = b"HTTP/1.1 %b %b\r\n" % (status, reason or b"")
    return ResponseHead(
        int(status),
        framing,
        keep_alive=b"close" not in tokens and (minor == b"1" or b"keep-alive" in tokens),
        forward=start + _lines(kept),
        dateless=not any(name == b"date" for name, _ in fields),
        upgrade=_upgrade(fields) if b"upgrade" in tokens else b"",
    )


def why_not_a_request(head: bytes) -> BadRequestError:
    """Return an error that explains why *head* is not a valid and complete request head."""
    line, _, rest = head.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if len(line) >= MAX_TARGET + 63:
        return BadRequestError(414, f"expected a target of at most {MAX_TARGET} bytes")
    if match is None:
        return BadRequestError(400, f"expected an HTTP request: METHOD TARGET HTTP/1.1; got {line[:80]!r}")
    if match[3] != b"1" or match[4] not in b"01":
        version = f"{int(match[3])}.{int(match[4])}"
        status = 505 if match[3] in {b"2", b"3"} and match[4] == b"0" else 400
        return BadRequestError(status, f"expected HTTP/1.0 or HTTP/1.1, got HTTP/{version}")
    lines = rest.split(b"\r\n")
    for line in lines:
        if line and not _FIELD_LINE.fullmatch(line):
            return BadRequestError(400, f"expected an HTTP request with NAME: VALUE fields, got {line[:40]!r}")
    return BadRequestError(431, f"expected at most {MAX_FIELDS} fields and {MAX_HEAD} bytes")


def early_refusal(beginning: bytes) -> BadRequestError | None:
    """Return an error if no valid request head can start with these bytes; None otherwise."""
    bare = re.search(rb"(?<!\r)\n", beginning)
    if bare or not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]|\r?\Z", beginning):
        return BadRequestError(400, f"expected an HTTP request, got {beginning[:40]!r}")
    if len(beginning) > MAX_TARGET + 64 and b"\r\n" not in beginning[: MAX_TARGET + 64]:
        return BadRequestError(414, f"expected a target of at most {MAX_TARGET} bytes")
    if len(beginning) > MAX_HEAD or beginning.count(b"\r\n") > MAX_FIELDS + 2:
        return BadRequestError(431, f"expected at most {MAX_FIELDS} fields and {MAX_HEAD} bytes")
    return None


def normal_path(target: bytes) -> str:
    """Return the path of *target* as routes match it: decoded, without dot segments and empty segments.

    Raises:
        BadRequestError: the path climbs above the root (RFC 3986 section 5.2.4), or a percent escape is invalid.
    """
    path = target.partition(b"?")[0].decode("ascii")
    if "%" not in path and "//" not in path and "/." not in path:
        return path
    if path.count("%") != len(_ESCAPE.findall(path)) or "%00" in path:
        raise BadRequestError(400, f"expected %XX escapes other than %00 in the path, got {path[:80]!r}")
    decoded = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), path)
    segments: list[str] = []
    for segment in decoded.split("/")[1:]:
        if segment == "..":
            if not segments:
                raise BadRequestError(400, f"expected a path below the root, got {path[:80]!r}")
            segments.pop()
        elif segment not in {"", "."}:
            segments.append(segment)
    slash = "/" if segments and decoded.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(segments) + slash


def _split(lines: bytes) -> Fields:
    """Split validated *lines* into (name, value) pairs, with lower-case names and values stripped of whitespace."""
    fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def _lines(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % each for each in fields])


def _tokens(fields: Fields) -> set[bytes]:
    return {token.strip().lower() for name, value in fields if name == b"connection" for token in value.split(b",")}


def _is_length(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 18


def _request_framing(fields: Fields, *, modern: bool) -> Framing:
    """Return the framing of the request body (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise BadRequestError(400, "expected Content-Length or Transfer-Encoding, got both")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadRequestError(501, f"expected Transfer-Encoding: chunked, got {b', '.join(codings)[:80]!r}")
        if not modern:
            raise BadRequestError(400, "expected HTTP/1.1 with Transfer-Encoding, got HTTP/1.0")
        return Framing(None, chunked=True)
    if not lengths:
        return NO_BODY
    if len(lengths) > 1 or not _is_length(lengths[0]):
        raise BadRequestError(400, f"expected one Content-Length in digits, got {b', '.join(lengths)[:80]!r}")
    return Framing(int(lengths[0]))


def _origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Return path and query, and the authority of an absolute form, which overrides Host (RFC 9112 section 3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, rest = absolute.groups()
        if not _AUTHORITY.fullmatch(authority):
            raise BadRequestError(400, f"expected HOST[:PORT] in the target, got {authority[:80]!r}")
        return rest if rest.startswith(b"/") else b"/" + rest, authority
    if (not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS")) or b"#" in target:
        raise BadRequestError(400, f"expected a path as target, got {target[:80]!r}")
    return target, b""


def _expects(fields: Fields, *, modern: bool) -> bool:
    wanted = [value.lower() for name, value in fields if name == b"expect"]
    if not wanted or not modern:
        return False
    if wanted != [b"100-continue"]:
        raise BadRequestError(417, f"expected Expect: 100-continue, got {b', '.join(wanted)[:80]!r}")
    return True


def _upgrade(fields: Fields) -> bytes:
    protocols = [value.lower() for name, value in fields if name == b"upgrade"]
    return protocols[0] if len(protocols) == 1 else b""


def _hops(method: bytes, fields: Fields) -> int | None:
    if method not in {b"TRACE", b"OPTIONS"}:
        return None
    limits = [value for name, value in fields if name == b"max-forwards"]
    if not limits:
        return None
    if len(limits) > 1 or not limits[0].isdigit() or len(limits[0]) > 9:
        raise BadRequestError(400, f"expected one Max-Forwards in digits, got {b', '.join(limits)[:80]!r}")
    return int(limits[0])


def _forward(method: bytes, target: bytes, host: bytes, fields: Fields, tokens: set[bytes]) -> bytes:
    """Return the head to send to an origin; it ends where the caller appends the client's address.

    Of the fields in which a client describes itself, only X-Forwarded-For is kept; the client's address as observed by
    the edge is appended to it. A name with an underscore is dropped if it resembles a field that the edge sets, because
    some origins treat both names as equal.
    """
    named = tokens - {b"content-length", b"host"}
    kept: Fields = []
    via: list[bytes] = []
    for name, value in fields:
        if name == b"via":
            via.append(value)
        elif name != b"host" and name not in named and _passes(name.replace(b"_", b"-"), underscored=b"_" in name):
            kept.append((name, value))
    hops = _hops(method, fields)
    if hops:
        kept.append((b"max-forwards", b"%d" % (hops - 1)))
    via.append(VIA)
    kept.append((b"via", b", ".join(via)))
    if host:
        kept.append((b"x-forwarded-host", host))
    if host:
        kept.insert(0, (b"host", host))
    return b"%b %b HTTP/1.1\r\n%bx-forwarded-for: " % (method, target, _lines(kept))


def _passes(name: bytes, *, underscored: bool) -> bool:
    if name in HOP_BY_HOP or name in OURS or name.startswith(b"x-forwarded-"):
        return False
    return not (underscored and name in {b"host", b"content-length"})


def _why_not_a_response(head: bytes) -> str:
    if head.count(b"\r\n") > MAX_FIELDS + 2 or len(head) > MAX_HEAD:
        return f"more than {MAX_FIELDS} fields or {MAX_HEAD} bytes in its head"
    return f"expected an HTTP response, got {head[:40]!r}"
