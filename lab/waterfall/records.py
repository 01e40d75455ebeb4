"""Description of TCP payloads: TLS records (RFC 8446 section 5.1) or HTTP messages.

Each reader follows one direction of a connection, whose bytes it needs in order.  Nothing is decrypted.
"""

CONTENT = {20: "ChangeCipherSpec", 21: "alert", 22: "handshake", 23: "data"}
#: Names of the TLS handshake messages, keyed by type (RFC 8446 section 4, RFC 5246 section 7.4, RFC 5077).
HANDSHAKE = {
    0: "HelloRequest",
    1: "ClientHello",
    2: "ServerHello",
    4: "NewSessionTicket",
    11: "Certificate",
    12: "ServerKeyExchange",
    13: "CertificateRequest",
    14: "ServerHelloDone",
    15: "CertificateVerify",
    16: "ClientKeyExchange",
    20: "Finished",
    22: "CertificateStatus",
}
#: Maximum payload of a TLS record in bytes (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
MAX_RECORD = (1 << 14) + 2048
#: Maximum number of characters to show of an HTTP message's first line.
MAX_LINE = 60


class RecordReader:
    """Returns descriptions of the TLS records in a byte stream."""

    def __init__(self) -> None:
        self._rest = b""
        #: Number of bytes of the current record that have not arrived yet.
        self._missing = 0
        #: Whether ChangeCipherSpec has arrived.  In TLS 1.2, all later handshake records are encrypted, so their types
        #: are unknown.
        self._encrypted = False
        self._lost = False

    def feed(self, data: bytes) -> list[str]:
        """Return descriptions of the records that start in *data*, or ``…`` if *data* only continues a record."""
        names: list[str] = []
        if self._lost:
            return ["?"]
        if self._missing >= len(data) > 0:
            self._missing -= len(data)
            return ["…"]
        data, self._missing = self._rest + data[self._missing :], 0
        while len(data) >= 6:
            kind, size = data[0], int.from_bytes(data[3:5], "big")
            if kind not in CONTENT or data[1] != 3 or size > MAX_RECORD:
                self._lost = True
                names.append("no TLS record")
                return names
            names.extend(self._name(kind, data[5 : 5 + size]))
            self._missing = max(0, 5 + size - len(data))
            data = data[5 + size :]
        self._rest = data
        return names or ["…"]

    def _name(self, kind: int, payload: bytes) -> list[str]:
        if kind == 20:
            self._encrypted = True
        if kind == 22:
            # After ChangeCipherSpec, a handshake record is unencrypted only if it is a hello after HelloRetryRequest.
            clear = payload[:1] in {b"\1", b"\2"} and 4 + int.from_bytes(payload[1:4], "big") == len(payload)
            return _messages(payload) if clear or not self._encrypted else ["encrypted handshake"]
        if kind == 23:
            return ["encrypted"]
        return ["encrypted alert"] if kind == 21 and self._encrypted else [CONTENT[kind]]


def _messages(payload: bytes) -> list[str]:
    """Return the names of the handshake messages in a record, which may not have arrived completely."""
    names, at = [], 0
    while at < len(payload):
        names.append(HANDSHAKE.get(payload[at], f"handshake {payload[at]}"))
        at += 4 + int.from_bytes(payload[at + 1 : at + 4].ljust(3, b"\xff"), "big")
    return names


class LineReader:
    """Returns the first line of an HTTP message, and ``data`` for everything after it."""

    def __init__(self) -> None:
        self._begun = False

    def feed(self, data: bytes) -> list[str]:
        """Return the first line on the first call, and ``data`` on all later calls."""
        if self._begun:
            return ["data"]
        self._begun = True
        line = data.split(b"\r\n", 1)[0][:MAX_LINE].decode("latin-1")
        return ["".join(c if c.isprintable() else "?" for c in line)]


def counted(names: list[str]) -> str:
    """Join names into one string with repetitions counted: ``ServerHello, 4 encrypted``."""
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in runs)
