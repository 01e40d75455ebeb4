"""Catalogue of the traps: the defect of each trap, and how a client should react to it."""

import datetime as dt
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cryptography.x509 import DNSName, TLSFeature, TLSFeatureType
from cryptography.x509.oid import ExtendedKeyUsageOID

from traps import answers
from traps.answers import BODY, HEAD, Answer, fixed, length
from traps.certificates import BACKDATE, LIFETIME, UNKNOWN, Identity, Mint, address, rsa_key

Group = Literal["control", "certificate", "TLS", "HTTP", "connection"]
#: How a client should react: fetch the page, report an error, or just exit in time, with or without an error.
Expected = Literal["accept", "refuse", "end"]
DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Trap:
    """A server with one defect, or a control without a defect."""

    name: str
    group: Group
    #: Description of the defect; for a control, of what is unusual but correct.
    what: str
    expected: Expected = "refuse"
    #: Creates the server's certificate and key; None for a server without TLS.
    identity: Callable[[Mint], Identity] | None = lambda mint: mint.good
    #: Changes the settings of the server's TLS context.
    settings: Callable[[ssl.SSLContext], None] = lambda context: None  # noqa: ARG005 - default: no change
    answer: Answer = answers.good
    #: Host in the URL.
    host: str = "localhost"
    #: Scheme in the URL.
    scheme: Literal["https", "http"] = "https"
    #: How the trap reacts to TCP connections: accepts, refuses or ignores them.
    listens: Literal["yes", "refuses", "ignores"] = "yes"
    #: Time in seconds that a client must wait before it retries the request; 0 without such a requirement.
    retry_after: float = 0.0


def only(version: ssl.TLSVersion, ciphers: str = "") -> Callable[[ssl.SSLContext], None]:
    """Return settings that allow only TLS *version* and, up to TLS 1.2, only *ciphers* (in OpenSSL's syntax)."""

    def settings(context: ssl.SSLContext) -> None:
        if ciphers:
            context.set_ciphers(ciphers)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
        context.minimum_version = version

    return settings


def weak(context: ssl.SSLContext) -> None:
    """Allow certificates and ciphers that OpenSSL refuses to serve by default."""
    context.set_ciphers("DEFAULT@SECLEVEL=0")


def _certificate(name: str, what: str, identity: Callable[[Mint], Identity], **more: object) -> Trap:
    return replace(Trap(name, "certificate", what, identity=identity), **more)  # type: ignore[arg-type]  # fields passed by name


def _plain(name: str, what: str, answer: Answer, **more: object) -> Trap:
    trap = Trap(name, "HTTP", what, identity=None, answer=answer, scheme="http")
    return replace(trap, **more)  # type: ignore[arg-type]  # fields passed by name


CONTROLS = (
    Trap("good", "control", "a chain of two ECDSA certificates below a trusted root", "accept"),
    Trap("good-rsa", "control", "an RSA key", "accept", lambda mint: mint.leaf(key=rsa_key(2048))),
    Trap("good-address", "control", "an IP address in the URL and in the certificate", "accept",
         lambda mint: mint.leaf(names=[address("127.0.0.1")]), host="127.0.0.1"),
    Trap("good-wildcard", "control", "a further, wildcard name in the certificate", "accept",
         lambda mint: mint.leaf(names=[DNSName("*.example.net"), DNSName(mint.host)])),
    Trap("many-names", "control", "1,000 names in the certificate", "accept", lambda mint: mint.many_names()),
    Trap("long-chain", "control", "eight intermediates", "accept", lambda mint: mint.long_chain()),
    Trap("big-chain", "control", "24 kB of unrelated certificates after the chain", "accept",
         lambda mint: mint.padded()),
    Trap("any-order", "control", "certificates in the wrong order (allowed by RFC 8446 section 4.4.2)", "accept",
         lambda mint: mint.reordered()),
    Trap("tls-1.2", "control", "TLS 1.2 only", "accept", settings=only(ssl.TLSVersion.TLSv1_2)),
    Trap("tls-1.3", "control", "TLS 1.3 only", "accept", settings=only(ssl.TLSVersion.TLSv1_3)),
    _plain("plain", "HTTP without TLS", answers.good, group="control", expected="accept"),
    _plain("early-hints", "a 103 response before the final one (RFC 8297)",
           fixed(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n", HEAD + length(len(BODY)) + BODY),
           group="control", expected="accept"),
    _plain("chunked", "a chunked body with an extension and a trailer",
           fixed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"),
           group="control", expected="accept"),
    _plain("until-close", "a body that ends with the connection", fixed(HEAD + b"\r\n" + BODY),
           group="control", expected="accept"),
)  # fmt: skip

CERTIFICATES = (
    _certificate("expired", "expired an hour ago", lambda mint: mint.leaf(begins=-DAY, ends=-BACKDATE)),
    _certificate("not-yet-valid", "valid from tomorrow", lambda mint: mint.leaf(begins=DAY, ends=LIFETIME)),
    _certificate("wrong-host", "another host's name", lambda mint: mint.leaf(names=[DNSName("other.example.net")])),
    _certificate("self-signed", "signed by its own key", lambda mint: mint.self_signed()),
    _certificate("untrusted-root", "a root with the trusted root's name, but another key",
                 lambda mint: mint.untrusted()),
    _certificate("missing-intermediate", "sent without the intermediate", lambda mint: mint.without_intermediate()),
    _certificate("expired-intermediate", "below an expired intermediate", lambda mint: mint.below_expired()),
    _certificate("issued-by-leaf", "issued by a server certificate (CA:FALSE)", lambda mint: mint.below_leaf()),
    _certificate("path-too-long", "below a CA that its issuer's path length forbids", lambda mint: mint.too_long()),
    _certificate("name-constraints", "a name outside its issuer's name constraints",
                 lambda mint: mint.outside_constraints()),
    _certificate("forged", "one bit of the signature is wrong", lambda mint: mint.forged()),
    _certificate("weak-key", "an RSA key of 1,024 bits", lambda mint: mint.leaf(key=rsa_key(1024)), settings=weak),
    _certificate("weak-digest", "signed with SHA-1", lambda mint: mint.sha1_signed(), settings=weak),
    _certificate("client-usage", "only for client authentication",
                 lambda mint: mint.leaf(usages=[ExtendedKeyUsageOID.CLIENT_AUTH])),
    _certificate("no-names", "the name only in the subject (RFC 9525 section 2)", lambda mint: mint.leaf(names=[])),
    _certificate("wildcard-top", "the name * alone", lambda mint: mint.leaf(names=[DNSName("*")])),
    _certificate("partial-wildcard", "a wildcard within a label (RFC 9525 section 6.3)",
                 lambda mint: mint.leaf(names=[DNSName(f"{mint.host[:2]}*")])),
    _certificate("nul-in-name", "a NUL byte after the host's name",
                 lambda mint: mint.leaf(names=[DNSName(f"{mint.host}\0.example.net")])),
    _certificate("wrong-address", "another IP address", lambda mint: mint.leaf(names=[address("127.0.0.2")]),
                 host="127.0.0.1"),
    _certificate("address-as-name", "an IP address written as a DNS name (RFC 9525 section 6.2)",
                 lambda mint: mint.leaf(names=[DNSName("127.0.0.1")]), host="127.0.0.1"),
    _certificate("unknown-critical", "an unknown critical extension (RFC 5280 section 4.2)",
                 lambda mint: mint.leaf(more=[(UNKNOWN, True)])),
    _certificate("must-staple", "demands a stapled OCSP response (RFC 7633), which is not sent",
                 lambda mint: mint.leaf(more=[(TLSFeature([TLSFeatureType.status_request]), False)])),
)  # fmt: skip

_ALERT = bytes.fromhex("15030300020228")  # a fatal handshake_failure alert

TLS = (
    Trap("tls-1.0", "TLS", "TLS 1.0 only (RFC 8996)", settings=only(ssl.TLSVersion.TLSv1, "DEFAULT@SECLEVEL=0")),
    Trap("tls-1.1", "TLS", "TLS 1.1 only (RFC 8996)", settings=only(ssl.TLSVersion.TLSv1_1, "DEFAULT@SECLEVEL=0")),
    Trap("null-cipher", "TLS", "TLS 1.2 without encryption",
         settings=only(ssl.TLSVersion.TLSv1_2, "eNULL@SECLEVEL=0")),
    Trap("anonymous", "TLS", "TLS 1.2 without certificate", settings=only(ssl.TLSVersion.TLSv1_2, "aNULL@SECLEVEL=0")),
    Trap("alert", "TLS", "a fatal alert instead of a ServerHello", identity=None, answer=answers.raw(_ALERT)),
    Trap("garbage", "TLS", "bytes that are not TLS", identity=None, answer=answers.raw(b"\xff" * 1000)),
    Trap("not-tls", "TLS", "a plain HTTP response on the HTTPS port", identity=None,
         answer=answers.raw(HEAD + length(len(BODY)) + BODY)),
    Trap("silent-handshake", "TLS", "no answer to the ClientHello", identity=None, answer=answers.mute),
    Trap("half-handshake", "TLS", "the first bytes of a ServerHello, then nothing", identity=None,
         answer=answers.raw(bytes.fromhex("160303007a0200"), stall=True)),
    Trap("truncated", "TLS", "a body that ends with the connection, without close_notify (RFC 9112 section 9.8)",
         answer=answers.truncated),
)  # fmt: skip

HTTP = (
    _plain("short-body", "fewer bytes than Content-Length says", fixed(HEAD + length(100) + BODY)),
    _plain("cut-chunk", "a chunked body without its end",
           fixed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n27\r\n" + BODY + b"\r\n")),
    _plain("bad-chunk", "a chunk size that is not a number",
           fixed(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n")),
    _plain("two-lengths", "two different values of Content-Length (RFC 9112 section 6.3)",
           fixed(HEAD + b"Content-Length: 5\r\n" + length(len(BODY)) + BODY)),
    _plain("bad-length", "a Content-Length that is not a number", fixed(HEAD + b"Content-Length: -1\r\n\r\n" + BODY)),
    _plain("bad-status", "a status line without a status", fixed(b"HTTP/1.1 OK\r\n" + length(len(BODY)) + BODY)),
    _plain("endless-head", "64 MB of header fields", answers.endless_head),
    _plain("redirect-loop", "redirects without end", answers.loop, expected="end"),
    _plain("half-body", "half of a response, then nothing", answers.half_body),
)  # fmt: skip

CONNECTION = (
    _plain("refused", "no server listens", answers.good, group="connection", listens="refuses"),
    _plain("no-answer", "the SYN is not answered", answers.good, group="connection", listens="ignores"),
    _plain("early-close", "the connection is closed after the request", fixed(), group="connection"),
    _plain("reset", "the connection is reset after the request", answers.reset, group="connection"),
    _plain("silence", "no response", answers.silence, group="connection"),
    _plain("busy-once", "503 with Retry-After, and a correct response afterwards", answers.busy_once,
           group="connection", expected="end", retry_after=answers.RETRY_AFTER),
)  # fmt: skip

TRAPS = (*CONTROLS, *CERTIFICATES, *TLS, *HTTP, *CONNECTION)
