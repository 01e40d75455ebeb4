"""Outgoing zone transfers: AXFR (RFC 5936) and IXFR (RFC 1995) as iterators of messages.

Nothing here opens a socket; the consumer of the iterator decides when the next message is made. Since zones are
immutable, changes during a transfer do not affect it. The messages of an AXFR are identical for every client,
except for the header, so they are cached in the `Zone` object.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from dnsmessage import Name, Record, RemoteError, rdtypes
from dnsmessage.message import AA, HEADER, MAX_TCP, QR, RD
from dnsmessage.request import Request
from nameserver.changes import Change, History, is_newer, serial_of
from nameserver.zone import Zone, kind

#: Target size of a message, in bytes: large enough that headers and signatures cost little, small enough to be encoded
#: in about a millisecond.
MESSAGE = 32_768
#: Number of RRsets that are encoded at a time.
GROUP = 256
#: Maximum number of records in a change that `revise` applies to encoded messages. It searches all messages for each of
#: these records, which takes about 0.3 ms per record for a zone with 100,000 names.
MAX_REVISED = 64
#: Compression pointer to the name in the question, the apex: every owner name is or ends with this pointer.
_APEX = b"\xc0\x0c"
_SOA = kind(rdtypes.SOA)


def whole(request: Request, zone: Zone) -> Iterator[bytes]:
    """Yield the messages that transfer all records of *zone*, with the SOA record first and last."""
    return (_message(request, count, records) for count, records in zone.encoded or _encoded(zone))


def encode(zone: Zone) -> None:
    """Encode *zone* for transfers in advance; otherwise, its first transfer encodes it."""
    for _ in _encoded(zone):
        pass


def revise(old: Zone, new: Zone, change: Change) -> None:
    """Encode *new* by applying *change* to the messages of the previous version, *old*.

    Does nothing if *old* has not been encoded or if *change* is large. Both versions share the unchanged messages.
    """
    if new.encoded or not old.encoded or len(change) > MAX_REVISED:
        return
    apex = len(new.apex.wire)
    before, after = (_record(_soa(zone), apex) for zone in (old, new))
    deleted, added = ([_record(record, apex) for record in records] for records in (change.deleted, change.added))
    messages, missing = list(old.encoded), set(deleted)
    messages[0] = messages[0][0] - 1, messages[0][1].removeprefix(before)
    messages[-1] = messages[-1][0] - 1, messages[-1][1].removesuffix(before)
    for at, (_, body) in enumerate(messages):
        if found := {record for record in missing if record in body}:
            records = list(_split(body))
            found.intersection_update(records)  # the bytes of a record may also be part of another record's data
            missing -= found
            records = [record for record in records if record not in found]
            messages[at] = len(records), b"".join(records)
    if not missing:
        new.encoded = tuple(_merged([(1, after), *messages, *((1, record) for record in added), (1, after)]))


def _merged(messages: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Merge adjacent messages as long as the result does not exceed `MESSAGE`."""
    total, parts, size = 0, list[bytes](), 0
    for count, body in messages:
        if parts and size + len(body) > MESSAGE:
            yield total, b"".join(parts)
            total, parts, size = 0, [], 0
        parts.append(body)
        total, size = total + count, size + len(body)
    yield total, b"".join(parts)


def _split(body: bytes) -> Iterator[bytes]:
    """Yield the encoded records in the body of a message."""
    at = 0
    while at < len(body):
        end = at
        while body[end] < _APEX[0]:
            end += 1 + body[end]
        end += 12
        end += int.from_bytes(body[end - 2 : end], "big")
        yield body[at:end]
        at = end


def _encoded(zone: Zone) -> Iterator[tuple[int, bytes]]:
    """Yield the record count and encoded records of each AXFR message of *zone*; at the end, cache them in *zone*."""
    messages, parts, count, size = list[tuple[int, bytes]](), list[bytes](), 0, 0
    for group in _groups(zone):
        block = b"".join(group)
        if size + len(block) > MESSAGE and parts:
            messages.append((count, b"".join(parts)))
            yield messages[-1]
            parts, count, size = [], 0, 0
        if len(block) > MESSAGE:
            for message in _bodies(group, MESSAGE):
                messages.append(message)
                yield message
        else:
            parts.append(block)
            count, size = count + len(group), size + len(block)
    messages.append((count, b"".join(parts)))
    yield messages[-1]
    zone.encoded = tuple(messages)


def incremental(request: Request, zone: Zone, history: History, *, udp_limit: int | None = None) -> Iterator[bytes]:
    """Yield the messages of the answer to an IXFR *request*, which contains the client's serial number.

    The answer is a single SOA record if the client is up to date. It is the whole zone if *history* does not reach back
    to the client's serial number, or if the changes have more records than the zone has RRsets. Over UDP, a whole zone,
    or an answer larger than *udp_limit* bytes, is replaced by the SOA record; the client then retries over TCP (RFC
    1995 section 2).

    Raises:
        RemoteError: FORMERR; the request has no SOA record with a serial number.
    """
    serial = next((serial_of(e.rdata) for e in request.authority if e.rdtype == rdtypes.SOA), None)
    if serial is None:
        raise RemoteError("expected an SOA record with the client's serial (RFC 1995 section 3)")
    soa = _record(_soa(zone), len(zone.apex.wire))
    changes = history.since(serial)
    if not is_newer(zone.serial, serial):
        return _messages(request, [soa], MAX_TCP)
    records = None if changes is None or sum(map(len, changes)) > len(zone.rrsets) else _changes(zone, changes)
    if udp_limit is None:
        return whole(request, zone) if records is None else _messages(request, records, MESSAGE)
    if records is not None:
        fitting = list(records)
        if HEADER.size + len(request.question) + sum(map(len, fitting)) <= udp_limit:
            return _messages(request, fitting, MAX_TCP)
    return _messages(request, [soa], MAX_TCP)


def _messages(request: Request, records: Iterable[bytes], limit: int) -> Iterator[bytes]:
    return (_message(request, count, body) for count, body in _bodies(records, limit))


def _bodies(records: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes]]:
    """Group encoded records into messages of about *limit* bytes; yield each message's record count and bytes."""
    parts, size = list[bytes](), 0
    for record in records:
        if size + len(record) > limit and parts:
            yield len(parts), b"".join(parts)
            parts, size = [], 0
        parts.append(record)
        size += len(record)
    yield len(parts), b"".join(parts)


def _message(request: Request, count: int, records: bytes) -> bytes:
    """Return one message; it repeats the question because owner names are compressed with pointers to it."""
    flags = QR | AA | request.flags & RD
    return HEADER.pack(request.ident, flags, 1, count, 0, 0) + request.question + records


def _groups(zone: Zone) -> Iterator[list[bytes]]:
    """Yield every record of the zone in wire form, in groups; the SOA record is first and last."""
    least = len(zone.apex.key) + 4
    soa = _record(_soa(zone), least - 4)
    yield [soa]
    rest, seen = iter(zone.rrsets.items()), False
    while part := list(islice(rest, GROUP)):
        if zone.spellings:
            part = [
                (zone.spellings.get(question[:-4], question[:-4]) + question[-4:], packed) for question, packed in part
            ]
        # One expression for all RRsets with a single record, because this step takes most of the time of a transfer.
        group = [question[:-least] + _APEX + question[-4:] + packed[1:] for question, packed in part if not packed[0]]
        if len(group) < len(part):
            group += [record for question, packed in part if packed[0] for record in _several(question, packed, least)]
        if not seen and soa in group:
            group.remove(soa)
            seen = True
        yield group
    yield [soa]


def _several(question: bytes, packed: bytes, least: int) -> Iterator[bytes]:
    """Yield the records of an RRset with several records; *least* is the size of apex, type and class in bytes."""
    head, at = question[:-least] + _APEX + question[-4:] + packed[1:5], 5
    while at < len(packed):
        end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
        yield head + packed[at:end]
        at = end


def _changes(zone: Zone, changes: list[Change]) -> Iterator[bytes]:
    """Yield the records of all changes between two copies of the new SOA record (RFC 1995 section 4)."""
    apex = len(zone.apex.wire)
    soa = _record(_soa(zone), apex)
    yield soa
    for change in changes:
        for record in change:
            yield _record(record, apex)
    yield soa


def _record(record: Record, apex: int) -> bytes:
    """Encode one record; *apex* is the length of the zone's name in wire form, in bytes."""
    owner = record.name.wire[:-apex] + _APEX
    return owner + kind(record.rdtype) + struct.pack("!IH", record.ttl, len(record.rdata)) + record.rdata


def _soa(zone: Zone) -> Record:
    return Record(Name(zone.apex.key), rdtypes.SOA, zone.soa.ttl, zone.soa.rdata[0])
