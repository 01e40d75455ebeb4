"""Domain validation with http-01 (RFC 8555 section 8.3), and CAA checks (RFC 8659).

Names are looked up through the lab's own resolver, without cached answers.  HTTP redirects are not followed.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from acme_server.problems import Problem
from stub import AsyncStub, NoAddress, NoSuchName, StubError
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

#: Time-out for connecting to the http-01 server and reading its response, in seconds.
TIMEOUT = 5.0
#: Response body size at which the http-01 client stops reading, in bytes; a key authorization has about 90.
MAX_ANSWER = 4096
#: Maximum number of names whose CAA records are looked up: the name itself and its parents (RFC 8659 section 3).
MAX_LABELS = 10
#: Known CAA property tags (RFC 8659 section 4.1, RFC 9495).  Only ``issue`` restricts names without a wildcard.
#: A record with an unknown tag and the critical flag forbids issuance.
KNOWN_TAGS = ("issue", "issuewild", "issuemail", "iodef", "contactemail", "contactphone")
CRITICAL = 128


async def validate_http01(stub: AsyncStub, name: str, token: str, expected: str, port: int = 80) -> None:
    """Fetch the http-01 response from *name*, and compare it with the key authorization *expected*.

    Raises:
        Problem: validation failed; the type is dns, connection, incorrectResponse or unauthorized.
    """
    stub.flush(name)
    try:
        found = await stub.resolve(name)
    except StubError as error:
        raise Problem("dns", str(error)) from None
    address = found.rdata[0]
    where = f"http://{name}:{port}/.well-known/acme-challenge/{token} at {address}"
    try:
        async with asyncio.timeout(TIMEOUT):
            status, body = await _get(address, port, name, f"/.well-known/acme-challenge/{token}")
    except OSError as error:
        reason = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
        raise Problem("connection", f"{where}: {reason}") from None
    except HttpError as error:
        raise Problem("unauthorized", f"{where}: {error}"[:300]) from None
    if status != 200:
        raise Problem("unauthorized", f"{where}: expected status 200, got {status}")
    if body.decode("latin-1").strip() != expected:
        raise Problem("incorrectResponse", f"{where}: expected the key authorization, got {body[:100]!r}")


async def check_caa(stub: AsyncStub, name: str, issuer: str) -> None:
    """Look up the CAA records for *name*; raise `Problem` if they do not permit *issuer* (RFC 8659)."""
    labels = name.split(".")
    for depth in range(min(len(labels), MAX_LABELS)):
        current = ".".join(labels[depth:])
        stub.flush(current)
        try:
            records = (await stub.resolve(current, "CAA")).rdata
        except (NoSuchName, NoAddress):
            continue
        except StubError as error:
            raise Problem("caa", f"{current}: CAA cannot be looked up: {error}") from None
        judge_caa(current, records, issuer)
        return


def judge_caa(name: str, records: Sequence[str], issuer: str) -> None:
    """Evaluate a CAA RRset (RFC 8659 sections 4.1 to 4.3); raise `Problem` if it forbids issuance.

    Args:
        name: owner name of the records.
        records: record data in zone file format, such as ``0 issue "ca.example.com; account=1"``.
        issuer: this CA's issuer name in CAA records.
    """
    permitted = []
    for record in records:
        flags, _, rest = record.partition(" ")
        tag, _, value = rest.partition(" ")
        tag = tag.lower()
        if tag == "issue":
            permitted.append(value.strip().strip('"').partition(";")[0].strip().rstrip(".").lower())
        elif tag not in KNOWN_TAGS and flags.isdecimal() and int(flags) & CRITICAL:
            raise Problem("caa", f"{name}: expected CAA tags that we know, got the critical {tag!r}")
    if permitted and issuer.rstrip(".").lower() not in permitted:
        raise Problem("caa", f"{name}: CAA permits {', '.join(filter(None, permitted)) or 'no CA'}; this is {issuer}")


async def _get(address: str, port: int, host: str, path: str) -> tuple[int, bytes]:
    """Send a GET request; return the status code and the body, truncated soon after `MAX_ANSWER` bytes."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(get(host, path, "User-Agent: firstbyte-ca", "Connection: close"))
        body: list[bytes] = []
        response = ResponseReader(body.append)
        while not response.complete and response.body_bytes < MAX_ANSWER:
            if data := await reader.read(MAX_ANSWER):
                response.feed(data)
            else:
                response.end()
        return response.status, b"".join(body)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
