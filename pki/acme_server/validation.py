"""Domain validation with http-01 and dns-01 (RFC 8555 sections 8.3 and 8.4), and CAA checks (RFC 8659).

Names are resolved through the lab's own resolvers, bypassing their caches.  TXT records for dns-01 are queried directly
at the zone's authoritative name servers.
"""

import asyncio
import hashlib
import ipaddress
import ssl
from collections.abc import Sequence

from acme_server import problems
from acme_server.jws import encode
from acme_server.names import is_wildcard
from acme_server.redirects import MAX_REDIRECTS, STATUSES, Ports, Target, check_address, next_target
from authority import Issuer
from stub import Answer, AsyncStub, NoAddress, NoSuchName, StubError, ask_name_servers
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

#: Time-out of one http-01 validation, including all redirects, in seconds.
TIMEOUT = 5.0
#: Response body size at which the http-01 client stops reading, in bytes; a key authorization is about 90 bytes long.
MAX_ANSWER = 4096
#: Maximum number of names whose CAA records are looked up: the name itself and its parents (RFC 8659 section 3).
MAX_LABELS = 10
#: Maximum number of unresponsive name servers in a dns-01 validation, if the zone has at least two name servers.
MAX_SILENT = 1
#: Known CAA property tags (RFC 8659 section 4.1, RFC 9495).  Only ``issue`` and ``issuewild`` restrict issuance.
#: A record with the critical flag and an unknown tag forbids issuance.
KNOWN_TAGS = ("issue", "issuewild", "issuemail", "iodef", "contactemail", "contactphone")
CRITICAL = 128


async def validate_http01(stub: AsyncStub, issuer: Issuer, name: str, token: str, expected: str, ports: Ports) -> None:
    """Fetch the http-01 response from *name*, and compare it with the key authorization *expected*.

    Each name is resolved only once, and the connection goes to the address that was checked, so that a name server
    cannot substitute another address after the check (DNS rebinding).

    Raises:
        Problem: validation failed; the type is dns, connection, incorrectResponse, unauthorized or rejectedIdentifier.
    """
    target = Target(tls=False, name=name, port=ports.http, path=f"/.well-known/acme-challenge/{token}")
    addresses: list[str] = []
    local = ipaddress.ip_address(stub.servers[0][0]).is_loopback
    try:
        async with asyncio.timeout(TIMEOUT):
            for _ in range(MAX_REDIRECTS + 1):
                addresses.append(await _address(stub, target.name))
                check_address(addresses[-1], local=local)
                response, body = await _get(addresses[-1], target)
                if response.status not in STATUSES:
                    break
                target = next_target(target, response.field(b"location"), issuer, ports)
            else:
                raise problems.unauthorized(f"{target}: expected at most {MAX_REDIRECTS} redirects")
    except OSError as error:
        reason = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
        where = f" at {addresses[-1]}" if addresses else ""
        raise problems.connection(f"{target}{where}: {reason}") from None
    except HttpError as error:
        raise problems.unauthorized(f"{target} at {addresses[-1]}: {error}"[:300]) from None
    if response.status != 200:
        raise problems.unauthorized(f"{target} at {addresses[-1]}: expected status 200, got {response.status}")
    if body.decode("latin-1").rstrip() != expected:
        detail = f"{target} at {addresses[-1]}: expected the key authorization, got {body[:100]!r}"
        raise problems.incorrect_response(detail)


async def validate_dns01(stub: AsyncStub, name: str, expected: str, port: int) -> None:
    """Check that the name servers of *name* return the expected TXT record for dns-01.

    Every server that answers must have the record; one unresponsive server is tolerated if others answer.

    Args:
        stub: stub resolver that finds the name servers.
        name: the name to validate, without a wildcard label.
        expected: the key authorization.
        port: port of the name servers.

    Raises:
        Problem: validation failed; the problem type is dns, unauthorized or incorrectResponse.
    """
    digest = encode(hashlib.sha256(expected.encode()).digest())
    owner = f"_acme-challenge.{name}"
    try:
        async with asyncio.timeout(TIMEOUT):
            answers = await ask_name_servers(stub, owner, "TXT", port)
    except StubError as error:
        raise problems.dns(str(error)) from None
    except TimeoutError:
        raise problems.dns(f"{owner}: no answer within {TIMEOUT:g} s") from None
    silent = 0
    for server, answer in answers.items():
        if isinstance(answer, Answer):
            texts = [_joined(each) for each in answer.rdata]
            if digest not in texts:
                found = ", ".join(texts)[:100]
                raise problems.incorrect_response(f"{owner} at {server}: expected a TXT record {digest}, got {found}")
        elif isinstance(answer, NoSuchName | NoAddress):
            raise problems.unauthorized(f"{owner} at {server}: expected a TXT record {digest}, got none")
        else:
            silent += 1
    if silent > min(MAX_SILENT, len(answers) - 1):
        raise problems.dns(f"{owner}: {silent} of {len(answers)} name servers did not answer")


def _joined(text: str) -> str:
    """Return the concatenated character strings of a TXT record; *text* is the record in zone file format."""
    return "".join(each.strip('"') for each in text.split(" "))


async def check_caa(stub: AsyncStub, name: str, issuer: str) -> None:
    """Look up the CAA records for *name*; raise `Problem` if they do not permit *issuer* (RFC 8659)."""
    wildcard = is_wildcard(name)
    labels = name.removeprefix("*.").split(".")
    for depth in range(min(len(labels), MAX_LABELS)):
        current = ".".join(labels[depth:])
        stub.flush(current)
        try:
            records = (await stub.resolve(current, "CAA")).rdata
        except (NoSuchName, NoAddress):
            continue
        except StubError as error:
            raise problems.caa(f"{current}: CAA cannot be looked up: {error}") from None
        judge_caa(current, records, issuer, wildcard=wildcard)
        return


def judge_caa(name: str, records: Sequence[str], issuer: str, *, wildcard: bool = False) -> None:
    """Evaluate a CAA RRset (RFC 8659 sections 4.1 to 4.3); raise `Problem` if it forbids issuance.

    Args:
        name: owner name of the records.
        records: record data in zone file format, such as ``0 issue "ca.example.com; account=1"``.
        issuer: this CA's issuer name in CAA records.
        wildcard: whether the certificate is for a wildcard name; if so, ``issuewild`` properties, if there are any,
            replace the ``issue`` properties.
    """
    permitted: dict[str, list[str]] = {"issue": [], "issuewild": []}
    for record in records:
        flags, _, rest = record.partition(" ")
        tag, _, value = rest.partition(" ")
        tag = tag.lower()
        if tag in permitted:
            permitted[tag].append(value.strip().strip('"').partition(";")[0].strip().rstrip(".").lower())
        elif tag not in KNOWN_TAGS and flags.isdecimal() and int(flags) & CRITICAL:
            raise problems.caa(f"{name}: expected known CAA tags, got the critical tag {tag!r}")
    issuers = (permitted["issuewild"] if wildcard else []) or permitted["issue"]
    if issuers and issuer.rstrip(".").lower() not in issuers:
        raise problems.caa(f"{name}: CAA permits {', '.join(filter(None, issuers)) or 'no CA'}; this is {issuer}")


async def _address(stub: AsyncStub, name: str) -> str:
    stub.flush(name)
    try:
        return (await stub.resolve(name)).rdata[0]
    except StubError as error:
        raise problems.dns(str(error)) from None


async def _get(address: str, target: Target) -> tuple[ResponseReader, bytes]:
    """Send a GET request; return the response's reader and the body, truncated soon after `MAX_ANSWER` bytes."""
    host = target.name if target.port in {80, 443} else f"{target.name}:{target.port}"
    context, name = (_unverified(), target.name) if target.tls else (None, None)
    reader, writer = await asyncio.open_connection(address, target.port, ssl=context, server_hostname=name)
    try:
        writer.write(get(host, target.path, "User-Agent: firstbyte-ca", "Accept: */*", "Connection: close"))
        body: list[bytes] = []
        response = ResponseReader(body.append)
        while not response.complete and response.body_bytes < MAX_ANSWER:
            if data := await reader.read(MAX_ANSWER):
                response.feed(data)
            else:
                response.end()
        return response, b"".join(body)
    finally:
        writer.transport.abort()  # do not wait for TLS or TCP to close; no more data is needed


def _unverified() -> ssl.SSLContext:
    """Return a TLS context that accepts every certificate: the server's current certificate may have expired."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
