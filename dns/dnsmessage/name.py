r"""Domain names in wire form (RFC 1035 section 3.1), compared without regard to case (RFC 4343).

A name is stored as sent on the wire: a length byte before each label, and a zero byte at the end. A label may contain
any byte, and its case is kept. `bytes.lower` can fold a whole name at once, because a length byte (at most 63) is never
an upper-case letter.
"""

from collections.abc import Iterable, Iterator

from dnsmessage.errors import NameSyntaxError

MAX_LABEL = 63
#: Maximum length of a name on the wire, in bytes, including the root's zero byte.
MAX_NAME = 255

#: Byte values that presentation format shows without an escape.
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b'.\\;"()@$')


class Name:
    """An absolute domain name; names that differ only in case are equal."""

    __slots__ = ("key", "wire")

    def __init__(self, wire: bytes) -> None:
        #: Uncompressed wire form, in the original case.
        self.wire = wire
        #: The wire form in lower case, used for comparison and hashing.
        self.key = wire.lower()

    @classmethod
    def from_labels(cls, labels: Iterable[bytes]) -> "Name":
        """Return the name with *labels*, most specific first; raise `NameSyntaxError` if a length is out of range."""
        wire = bytearray()
        for label in labels:
            if not 0 < len(label) <= MAX_LABEL:
                shown = label.decode("latin-1")
                raise NameSyntaxError(f"expected labels of 1 to {MAX_LABEL} bytes, got {len(label)} in {shown!r}")
            wire.append(len(label))
            wire += label
        if len(wire) >= MAX_NAME:
            raise NameSyntaxError(f"expected a name of at most {MAX_NAME} bytes, got {len(wire) + 1}")
        return cls(bytes(wire) + b"\0")

    @classmethod
    def from_text(cls, text: str | bytes, origin: "Name | None" = None) -> "Name":
        r"""Parse ``www.example.com.`` or, if *origin* is given, a relative name or ``@``.

        ``\.`` and ``\DDD`` are escapes. Text outside ASCII is encoded as UTF-8.

        Raises:
            NameSyntaxError: a label is empty or too long, the name is longer than 255 bytes or is not valid Unicode, or
                the name is relative and *origin* is None.
        """
        try:
            raw = text.encode() if isinstance(text, str) else text
        except UnicodeEncodeError:
            raise NameSyntaxError(f"expected a name in Unicode, got {text!r}") from None
        if raw == b".":
            return ROOT
        if raw == b"@" and origin is not None:
            return origin
        labels = _split(raw) if b"\\" in raw else raw.split(b".")
        absolute = len(labels) > 1 and not labels[-1]
        if absolute:
            del labels[-1]
        elif origin is None:
            raise NameSyntaxError(f"expected an absolute name (with a dot at the end), got {shown(raw)!r}")
        try:
            return cls.from_labels(labels if absolute or origin is None else (*labels, *origin.labels))
        except NameSyntaxError as error:
            raise NameSyntaxError(f"{error}: {shown(raw)!r}" if "at most" in str(error) else str(error)) from None

    @property
    def labels(self) -> tuple[bytes, ...]:
        """The labels, most specific first; empty for the root."""
        labels, at, wire = [], 0, self.wire
        while length := wire[at]:
            labels.append(wire[at + 1 : at + 1 + length])
            at += 1 + length
        return tuple(labels)

    def parent(self) -> "Name":
        """Return the name without its first label; the root's parent is the root."""
        return Name(self.wire[1 + self.wire[0] :]) if self.wire[0] else self

    def is_below(self, ancestor: "Name") -> bool:
        """Return whether this name equals *ancestor* or is below it."""
        spare = len(self.key) - len(ancestor.key)
        if spare < 0 or not self.key.endswith(ancestor.key):
            return False
        at, key = 0, self.key
        while at < spare:
            at += 1 + key[at]
        return at == spare

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: "Name") -> bool:
        """Compare in canonical DNS order: label by label from the root (RFC 4034 section 6.1)."""
        return Name(self.key).labels[::-1] < Name(other.key).labels[::-1]

    def __str__(self) -> str:
        return "".join(escape(label) + "." for label in self.labels) or "."

    def __repr__(self) -> str:
        return f"<Name {self}>"


ROOT = Name(b"\0")


def suffixes(key: bytes) -> Iterator[bytes]:
    """Yield *key* (a name in wire form), then each of its ancestors; the root is last."""
    at = 0
    while True:
        yield key[at:]
        if not key[at]:
            return
        at += 1 + key[at]


def escape(label: bytes) -> str:
    r"""Return *label* in presentation format, with ``\DDD`` for every byte that needs an escape."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in label)


def shown(raw: bytes) -> str:
    """Return *raw* as text for an error message; bytes that are not UTF-8 are shown as escapes."""
    return raw.decode("utf-8", "backslashreplace")


def unescape(raw: bytes, at: int) -> tuple[int, int]:
    r"""Return the value of the escape at offset *at* (``\DDD`` or ``\X``) and the offset after it.

    Raises:
        NameSyntaxError: the backslash is followed by neither a character nor three digits up to 255.
    """
    digits = raw[at + 1 : at + 4]
    if len(digits) == 3 and digits.isdigit() and int(digits) < 256:
        return int(digits), at + 4
    if digits and not digits[:1].isdigit():
        return digits[0], at + 2
    raise NameSyntaxError(f"expected a character or three digits up to 255 after the backslash in {shown(raw)!r}")


def _split(raw: bytes) -> list[bytes]:
    labels, label, at = [], bytearray(), 0
    while at < len(raw):
        if raw[at] == 0x5C:
            byte, at = unescape(raw, at)
            label.append(byte)
        else:
            if raw[at] == 0x2E:
                labels.append(bytes(label))
                label.clear()
            else:
                label.append(raw[at])
            at += 1
    return [*labels, bytes(label)]
