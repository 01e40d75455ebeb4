"""Responds to dns-01 challenges (RFC 8555 section 8.4): adds and removes TXT records with DNS UPDATE (RFC 2136).

The messages are signed with a shared key (TSIG, RFC 8945) and sent over TCP.
"""

import asyncio
import base64
import hashlib
import secrets
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from dnsmessage import DnsMessageError, Name, rcode_to_text, rdtypes
from dnsmessage.keyfile import KeyFileError, load_keys
from dnsmessage.message import HEADER, NOERROR
from dnsmessage.request import UPDATE
from dnsmessage.tsig import Key, Verifier, sign
from renewal.errors import AcmeError
from stub import Answer, AsyncStub, NoAddress, NoSuchName, StubError, ask_name_servers, zone_of
from telemetry import log

logger = log.get("renewal")

#: TTL of the TXT records, in seconds.
TTL = 10
#: Time-out of an UPDATE transaction, in seconds.
UPDATE_TIMEOUT = 5.0
#: Maximum time until all name servers have the records, and the polling interval, in seconds.
PROPAGATION, POLL = 15.0, 0.1


@dataclass(slots=True)
class Dns01:
    """Adds the TXT records for an order's challenges, waits for all name servers, and finally removes the records."""

    #: IPv4 address and port of the primary name server; the zone's other name servers must use the same port.
    server: tuple[str, int]
    key: Key
    #: Stub resolver that finds zones and name servers.
    stub: AsyncStub
    #: Owner name and text of each record that was added and not removed yet.
    _records: list[tuple[str, str]] = field(default_factory=list)

    async def add(self, domain: str, key_authorization: str) -> None:
        """Add the challenge record for the DNS name *domain*; raise `AcmeError` on failure."""
        digest = hashlib.sha256(key_authorization.encode()).digest()
        record = (f"_acme-challenge.{domain}", base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
        await self._update(*record, delete=False)
        self._records.append(record)

    async def propagated(self) -> None:
        """Wait until all name servers have all records; raise `AcmeError` after `PROPAGATION` seconds."""
        missing = list(self._records)
        try:
            async with asyncio.timeout(PROPAGATION):
                while missing := [each for each in missing if not await self._present(*each)]:  # noqa: ASYNC110 - polls: no event signals that a name server has a record
                    await asyncio.sleep(POLL)  # wait before asking the name servers again
        except TimeoutError:
            names = ", ".join(sorted({owner for owner, _ in missing}))
            raise AcmeError(f"{names}: not on all name servers within {PROPAGATION:g} s") from None

    async def remove(self) -> None:
        """Remove all records; only log failures, because leftover records do not invalidate the certificate."""
        while self._records:
            try:
                await self._update(*self._records.pop(), delete=True)
            except AcmeError as error:
                logger.warning("challenge_record_not_removed", error=str(error))

    async def _present(self, owner: str, text: str) -> bool:
        try:
            answers = await ask_name_servers(self.stub, owner, "TXT", self.server[1])
        except StubError:
            return False
        # Ignore name servers that do not answer: the CA probably cannot reach them either.
        heard = [each for each in answers.values() if isinstance(each, Answer | NoSuchName | NoAddress)]
        return bool(heard) and all(isinstance(each, Answer) and f'"{text}"' in each.rdata for each in heard)

    async def _update(self, owner: str, text: str, *, delete: bool) -> None:
        where = f"UPDATE of {owner} at {self.server[0]}:{self.server[1]}"
        try:
            zone, _ = await zone_of(self.stub, owner)
            wire = encode_update(secrets.randbits(16), Name.from_text(f"{zone}."), owner, text, delete=delete)
            signed, mac = sign(wire, self.key, int(time.time()))
            async with asyncio.timeout(UPDATE_TIMEOUT):
                reply = await _exchange(self.server, signed)
            verified = Verifier(self.key, mac).verify(reply, int(time.time()))
            ident, flags, *_ = HEADER.unpack_from(verified)
        except TimeoutError:
            raise AcmeError(f"{where}: no answer within {UPDATE_TIMEOUT:g} s") from None
        except (OSError, EOFError, StubError, DnsMessageError) as error:
            raise AcmeError(f"{where}: {str(error) or type(error).__name__}") from None
        if ident != int.from_bytes(wire[:2]) or flags & 0xF != NOERROR:
            raise AcmeError(f"{where}: expected NOERROR, got {rcode_to_text(flags & 0xF)}")


def load_key(file: Path) -> Key:
    """Read the TSIG key in *file*; raise `AcmeError` if the file is unreadable or does not contain exactly one key."""
    try:
        (key,) = load_keys(file).values()
    except (KeyFileError, ValueError) as error:
        raise AcmeError(f"{file}: expected one TSIG key: {error}") from None
    return key


def encode_update(ident: int, zone: Name, owner: str, text: str, *, delete: bool) -> bytes:
    """Encode an UPDATE that adds or deletes one TXT record (RFC 2136 sections 2.5.1 and 2.5.4)."""
    rdata = bytes([len(text)]) + text.encode()
    rdclass, ttl = (rdtypes.NONE, 0) if delete else (rdtypes.IN, TTL)
    question = zone.wire + struct.pack("!HH", rdtypes.SOA, rdtypes.IN)
    record = Name.from_text(f"{owner}.").wire + struct.pack("!HHIH", rdtypes.TXT, rdclass, ttl, len(rdata)) + rdata
    return HEADER.pack(ident, UPDATE << 11, 1, 0, 1, 0) + question + record


async def _exchange(server: tuple[str, int], wire: bytes) -> bytes:
    """Send a message over a new TCP connection, and return the reply; raise `OSError` or `EOFError` on failure."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
