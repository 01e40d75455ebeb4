"""Read the answer to a zone transfer, message by message: AXFR (RFC 5936) and IXFR (RFC 1995).

Nothing here opens a socket or reads a clock. A complete stream gives one of three results: our zone is up to date, a
whole zone, or changes to our zone. Any other stream raises `TransferError`. Signatures are checked earlier, by
the caller (`dnsmessage.tsig`); `Zone` checks later that the records form a valid zone.
"""

import struct
from dataclasses import dataclass

from dnsmessage import Name, Record, RemoteError, decode_part, rcode_to_text, rdtypes
from dnsmessage.message import HEADER
from nameserver.changes import Change, is_newer, serial_of
from nameserver.errors import NameServerError
from nameserver.zone import ZoneBuilder, kind

#: Maximum number of records in one transfer: ten times as many as in the largest zone used in benchmarks.
MAX_RECORDS = 10_000_000
#: Maximum total size of the messages of one transfer, in bytes.
MAX_BYTES = 1 << 30
#: Maximum number of messages without records in one transfer; without a limit, a primary could send them forever.
MAX_EMPTY = 100


class TransferError(NameServerError):
    """The primary refused the transfer or sent an invalid answer. The zone in service is not affected."""


@dataclass(frozen=True, slots=True)
class UpToDate:
    """The primary has no newer version than ours; *serial* is the primary's serial number."""

    serial: int


@dataclass(frozen=True, slots=True)
class Whole:
    """The answer contains the whole zone."""

    builder: ZoneBuilder


@dataclass(frozen=True, slots=True)
class Changes:
    """The answer contains the changes from our version to the primary's, oldest first."""

    changes: tuple[Change, ...]


Result = UpToDate | Whole | Changes


def encode_transfer_query(ident: int, apex: Name, soa: bytes | None) -> bytes:
    """Encode an AXFR query, or an IXFR query with our SOA RDATA *soa* in its authority section (RFC 1995 section 3)."""
    question = apex.wire + kind(rdtypes.AXFR if soa is None else rdtypes.IXFR)
    query = HEADER.pack(ident, 0, 1, 0, int(soa is not None), 0) + question
    return query if soa is None else query + b"\xc0\x0c" + kind(rdtypes.SOA) + struct.pack("!IH", 0, len(soa)) + soa


class Inbound:
    """One transfer: pass each message to `feed` until it returns True, then use `result`.

    Args:
        query: the AXFR or IXFR query as sent, without its signature.
        apex: the zone.
        have: our serial number, as sent in the IXFR query; None for AXFR.
    """

    def __init__(self, query: bytes, apex: Name, have: int | None) -> None:
        self.result: Result | None = None
        self.messages = self.records = self.bytes = 0
        self._query, self._apex, self._have, self._empty = query, apex, have, 0
        #: The SOA record that begins the stream; a second copy ends it.
        self._first: Record | None = None
        #: Builder of a whole zone; None until the second record arrives, and None if the stream contains changes.
        self._builder: ZoneBuilder | None = None
        #: The changes that have been read completely.
        self._changes: list[Change] = []
        #: The old SOA record of the change that is being read.
        self._old: Record | None = None
        #: The new SOA record of the change that is being read.
        self._new: Record | None = None
        #: The deleted records of the change that is being read.
        self._deleted: list[Record] = []
        #: The added records of the change that is being read.
        self._added: list[Record] = []

    def __repr__(self) -> str:
        state = "done" if self.result else "whole" if self._builder else "changes" if self._old else "start"
        return f"<Inbound {self._apex} {state} messages={self.messages} records={self.records} bytes={self.bytes}>"

    def feed(self, message: bytes) -> bool:
        """Read one message, without its TSIG record; return whether the transfer is complete.

        Raises:
            TransferError: the message or the stream is malformed or too large, or the primary refuses the transfer.
        """
        try:
            rcode, records = decode_part(self._query, message)
        except RemoteError as error:
            raise TransferError(f"message {self.messages + 1}: {error}") from None
        if rcode:
            raise TransferError(f"expected NOERROR, got {rcode_to_text(rcode)}")
        self.messages += 1
        self.records += len(records)
        self.bytes += len(message)
        self._empty += not records
        for what, got, most in (
            ("records", self.records, MAX_RECORDS),
            ("bytes", self.bytes, MAX_BYTES),
            ("messages without a record", self._empty, MAX_EMPTY),
        ):
            if got > most:
                raise TransferError(f"expected at most {most} {what} in a transfer")
        for record in records:
            self._record(record)
        if self.records == 1 and self._first is not None and self._have is not None:
            serial = serial_of(self._first.rdata)
            # If the SOA record is not newer than ours, it is the whole answer; otherwise more records follow.
            if not is_newer(serial, self._have):
                self.result = UpToDate(serial)
        return self.result is not None

    def _record(self, record: Record) -> None:
        if self.result is not None:
            raise TransferError(f"expected nothing after the last SOA, got {_shown(record)}")
        if not record.name.is_below(self._apex) or record.rdtype in rdtypes.META:
            raise TransferError(f"expected data of {self._apex}, got {_shown(record)}")
        soa = record.rdtype == rdtypes.SOA
        if soa and record.name != self._apex:
            raise TransferError(f"expected SOA at {self._apex} only, got {_shown(record)}")
        if self._first is None:
            if not soa:
                raise TransferError(f"expected SOA as the first record, got {_shown(record)}")
            self._first = record
        elif self._builder is None and self._old is None:
            self._second(record, soa=soa)
        elif self._builder is None:
            self._change(record, soa=soa)
        elif not soa:
            self._builder.spell(record.name)
            self._builder.add(record.name.key + kind(record.rdtype), record.ttl, record.rdata)
        elif record.rdata == self._first.rdata:
            self.result = Whole(self._builder)
        else:
            raise TransferError(f"expected serial {serial_of(self._first.rdata)} again, got {serial_of(record.rdata)}")

    def _second(self, record: Record, *, soa: bool) -> None:
        """Detect from the second record whether changes or a whole zone follow (RFC 1995 section 4)."""
        assert self._first is not None  # noqa: S101 - `feed` set it at the first record
        if not soa or self._have is None or record.rdata == self._first.rdata:
            self._builder = ZoneBuilder(self._apex)
            self._builder.add(self._apex.key + kind(rdtypes.SOA), self._first.ttl, self._first.rdata)
            self._record(record)
        elif serial_of(record.rdata) == self._have:
            self._old = record
        else:
            raise TransferError(f"expected changes from serial {self._have}, got them from {serial_of(record.rdata)}")

    def _change(self, record: Record, *, soa: bool) -> None:
        """Read one record of a stream of changes."""
        assert self._old is not None  # noqa: S101 - `_second` has set it
        assert self._first is not None  # noqa: S101 - `feed` set it at the first record
        if self._new is None:
            if soa:
                self._new = record
            else:
                self._deleted.append(record)
        elif not soa:
            self._added.append(record)
        elif record.rdata != self._new.rdata:
            before, after = serial_of(self._new.rdata), serial_of(record.rdata)
            raise TransferError(f"expected a change from serial {before}, got one from {after}")
        else:
            self._changes.append(Change(self._old, self._new, tuple(self._deleted), tuple(self._added)))
            self._old, self._new = record, None
            self._deleted, self._added = [], []
            if record.rdata == self._first.rdata:
                self.result = Changes(tuple(self._changes))


def _shown(record: Record) -> str:
    return f"{rdtypes.to_text(record.rdtype)} at {record.name}"
