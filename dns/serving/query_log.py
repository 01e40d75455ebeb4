"""Log of the most recent queries, stored as raw bytes and decoded only when the log is read."""

import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dnsmessage import Name, RemoteError, decode_query, rcode_to_text, rdtypes
from serving.batch import client_of
from telemetry import AdminError, Request

#: Number of queries kept for ``GET /admin/queries``, about as many as an experiment sends in a few seconds.
SIZE = 2000
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
#: Log entry of one query: time, transport, rcode, query bytes, client address, further fields.
_Single = tuple[float, str, int, bytes, str, Mapping[str, Any]]
#: Log entry for a batch of queries: time, lower-case questions, clients as consecutive struct sockaddr_in.
_Batch = tuple[float, list[bytes], bytes]


#: Maximum number of bytes stored per query: the header and the longest possible question. The limit keeps padded
#: queries from filling memory.
_STORED = 12 + 255 + 4


#: Names of opcodes that are logged in place of the record type.
_OPCODES = {4: "NOTIFY", 5: "UPDATE"}


class QueryLog:
    """The most recent queries: at least the last *size*, more when the oldest entry is a batch."""

    def __init__(self, size: int = SIZE, batch: Mapping[str, Any] = NO_FIELDS) -> None:
        """Create an empty log; *batch* contains further fields of every query that is recorded with `add_batch`."""
        self._size, self._count, self._fields = size, 0, batch
        #: Number of the next query, counted from the start of the process.
        self.next = 0
        self._entries: deque[_Single | _Batch] = deque()

    def __len__(self) -> int:
        return self._count

    def add(self, client: str, transport: str, wire: bytes, rcode: int, fields: Mapping[str, Any] = NO_FIELDS) -> None:
        """Record one query that was answered outside a batch, with further *fields*."""
        self._append((time.time(), transport, rcode, wire[:_STORED], client, fields), 1)

    def add_batch(self, questions: list[bytes], clients: bytes) -> None:
        """Record a batch of UDP queries that received prebuilt answers with rcode NOERROR."""
        self._append((time.time(), questions, clients), len(questions))

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """Return up to *limit* queries as JSON objects, newest first."""
        found: list[dict[str, Any]] = []
        for entry in reversed(self._entries):
            if len(found) >= limit:
                break
            found += reversed(self._rows(entry))
        return found[:limit]

    def since(self, number: int, limit: int) -> tuple[list[dict[str, Any]], int, int]:
        """Return queries from *number* on, oldest first: at most *limit*, or slightly more to end with a whole batch.

        Also returns the number to continue from, and how many queries from *number* on are no longer in the log.
        """
        at = self.next - self._count
        missed = max(0, min(at, self.next) - number)
        found: list[dict[str, Any]] = []
        for entry in self._entries:
            weight = _weight(entry)
            if at + weight > number:
                if len(found) >= limit:
                    break
                found += self._rows(entry)[max(0, number - at) :]
            at += weight
        return found, at, missed

    def page(self, request: Request) -> list[dict[str, Any]] | dict[str, Any]:
        """Answer ``GET /admin/queries`` with the latest queries, or those from number ``after`` on, oldest first.

        Raises:
            AdminError: a parameter is not a number (400).
        """
        numbers = {"limit": "100", "after": "0"} | request.query
        if not all(numbers[each].isascii() and numbers[each].isdigit() for each in ("limit", "after")):
            raise AdminError(400, f"expected limit=NUMBER and after=NUMBER, got {dict(request.query)}")
        if "after" not in request.query:
            return self.latest(int(numbers["limit"]))
        queries, following, missed = self.since(int(numbers["after"]), int(numbers["limit"]))
        return {"next": following, "missed": missed, "queries": queries}

    def _rows(self, entry: _Single | _Batch) -> list[dict[str, Any]]:
        if len(entry) == 6:
            return [_single(*entry)]
        return [{**row, **self._fields} for row in _batch(*entry)]

    def _append(self, entry: _Single | _Batch, count: int) -> None:
        self.next += count
        self._entries.append(entry)
        self._count += count
        while self._count - (first := _weight(self._entries[0])) >= self._size:
            self._entries.popleft()
            self._count -= first


def _weight(entry: _Single | _Batch) -> int:
    return 1 if len(entry) == 6 else len(entry[1])


def _single(
    at: float, transport: str, rcode: int, wire: bytes, client: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        query = decode_query(wire[:2] + b"\0\0\0\1\0\0\0\0\0\0" + wire[12:])
        qtype = _OPCODES.get(wire[2] >> 3 & 0xF) or rdtypes.to_text(query.qtype)
        qname = str(Name(query.qname.key))
    except RemoteError:
        qname, qtype = "?", "?"
    return {**_row(at, client, transport, qname, qtype, rcode), **fields}


def _batch(at: float, questions: list[bytes], clients: bytes) -> list[dict[str, Any]]:
    rows = []
    for place, question in enumerate(questions):
        client, _ = client_of(clients[16 * place : 16 * place + 16])
        qtype = rdtypes.to_text(int.from_bytes(question[-4:-2], "big"))
        rows.append(_row(at, client, "udp", str(Name(question[:-4])), qtype, 0))
    return rows


def _row(at: float, client: str, transport: str, qname: str, qtype: str, rcode: int) -> dict[str, Any]:
    return {
        "time": at, "client": client, "transport": transport, "qname": qname, "qtype": qtype,
        "rcode": rcode_to_text(rcode),
    }  # fmt: skip
