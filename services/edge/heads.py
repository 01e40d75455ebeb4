"""Heads of requests and responses, checked and made ready to be forwarded (RFC 9110 section 7.6, RFC 9112).

Both functions here are pure: the same bytes always give the same head, so that a caller may remember what it got
(`edge.remembered`).  One anchored expression checks the grammar of a whole head; only a head that fails it is looked at
line by line, to say why.  What two readers could understand in two ways is refused.
"""

import re
from dataclasses import dataclass

from edge.errors import BadRequestError, BadResponseError

#: Limits of a head: bytes, fields, bytes of the request target.  nginx, Apache and HAProxy accept about as much.
MAX_HEAD, MAX_FIELDS, MAX_TARGET = 32 * 1024, 100, 8192
#: Fields of one connection (RFC 9110 section 7.6.1), in addition to those that Connection itself names.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
#: Fields that the edge writes itself, or answers itself.
OURS = frozenset({b"via", b"expect", b"forwarded", b"max-forwards"})
#: Methods that may be sent again without harm (RFC 9110 section 9.2.2).
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
    """How the body of a message is delimited (RFC 9112 section 6)."""

    #: Bytes; None when chunked, or when the head does not say.
    length: int | None = None
    chunked: bool = False


NO_BODY = Framing(0)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request that may be forwarded."""

    method: bytes
    #: In origin form: path and query.
    target: bytes
    #: Without query, percent-decoded, without dot segments and empty segments: what routes are matched with.
    path: str
    #: Whether the client speaks HTTP/1.1, and not 1.0.
    modern: bool
    framing: Framing
    #: Whether the client closes after the response.
    close: bool
    #: Whether the client waits for 100 (Continue) before it sends the body.
    expects: bool
    #: The protocol that the client would rather speak, in lower case, or nothing.
    upgrade: bytes
    #: Host, or nothing from an HTTP/1.0 client.
    host: bytes
    #: Hops that are left for TRACE and OPTIONS (RFC 9110 section 7.6.2); None without a limit.
    hops: int | None
    #: What goes to the origin: the start line, the end-to-end fields, and ``x-forwarded-for: `` with what the client claims.
    #: The address of the client and an empty line complete it.
    forward: bytes
    #: What the client claims in X-Forwarded-For, as it ends `forward`.
    claimed: bytes = b""
    #: The client's X-Request-ID and the trace ID of its traceparent (W3C Trace Context), for the access log.
    request_id: bytes = b""
    trace_id: bytes = b""

    @property
    def idempotent(self) -> bool:
        """Whether the request may be sent twice."""
        return self.method in IDEMPOTENT

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow the head."""
        return self.framing.chunked or bool(self.framing.length)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """An origin's response, ready for a client."""

    status: int
    framing: Framing
    #: Whether the origin keeps its connection open.
    keep_alive: bool
    #: Status line and end-to-end fields, Via included; framing, Connection and the empty line are still to come.
    forward: bytes
    #: Whether Date is missing; a proxy adds one (RFC 9110 section 6.6.1).
    dateless: bool
    #: The protocol of a 101 (Switching Protocols).
    upgrade: bytes = b""


def request_head(head: bytes) -> RequestHead:
    """Read a request's head, from the first byte of the method to the empty line, both included.

    Raises:
        BadRequestError: with the status that fits.
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
    """Read a response's head, from ``HTTP/`` to the empty line, both included.

    Raises:
        BadResponseError: it is not one, or its end could be read in two ways.
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
        if each[0] not in HOP_BY_HOP and each[0] not in named and each[0] not in {b"content-length", b"server-timing", b"via"}
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
    """Return what is wrong with bytes that are not a request's head, or are only its beginning."""
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
    """Return why these bytes can never become a request's head, whatever follows; None while they can."""
    bare = re.search(rb"(?<!\r)\n", beginning)
    if bare or not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]|\r?\Z", beginning):
        return BadRequestError(400, f"expected an HTTP request, got {beginning[:40]!r}")
    if len(beginning) > MAX_TARGET + 64 and b"\r\n" not in beginning[: MAX_TARGET + 64]:
        return BadRequestError(414, f"expected a target of at most {MAX_TARGET} bytes")
    if len(beginning) > MAX_HEAD or beginning.count(b"\r\n") > MAX_FIELDS + 2:
        return BadRequestError(431, f"expected at most {MAX_FIELDS} fields and {MAX_HEAD} bytes")
    return None


def normal_path(target: bytes) -> str:
    """Return the path of *target* as routes see it: decoded, without dot segments, without empty segments.

    Raises:
        BadRequestError: it climbs above the root, or a percent sign does not begin an escape (RFC 3986 section 5.2.4).
    """
    path = target.partition(b"?")[0].decode("ascii")
    if "%" not in path and "//" not in path and "/." not in path:
        return path
    if path.count("%") != len(_ESCAPE.findall(path)) or "%00" in path:
        raise BadRequestError(400, f"expected %XX escapes in the path, got {path[:80]!r}")
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
    """Return the fields of checked *lines*, names in lower case, values without surrounding blanks."""
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
    """Return where the request ends (RFC 9112 section 6.3)."""
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
    """Return what an origin is sent, without the client's address.

    Of what a client claims about itself only X-Forwarded-For is kept, in front of the address that we see.  A name with
    an underscore is dropped where it would read like a field of ours: some origins take one for the other.
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
