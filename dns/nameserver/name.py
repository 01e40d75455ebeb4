"""Domain names as tuples of lower-cased labels, most specific first; the root is ``()`` (RFC 1034 section 3.1).

Compared without regard to case (RFC 4343), which is why case is gone here; the question's own spelling is kept by
whoever answers it.
"""

from nameserver.errors import NameServerError

Name = tuple[bytes, ...]

MAX_LABEL = 63
MAX_NAME = 255


class BadNameError(NameServerError):
    """Not a domain name."""


def from_text(text: str, origin: Name | None = None) -> Name:
    r"""Read ``www.example.com.`` (absolute) or, given *origin*, a relative name or ``@``; ``\.`` and ``\DDD`` escape.

    Raises:
        BadNameError: empty or too long labels, a name over 255 octets, relative without an origin.
    """
    if text == "@":
        return _relative(origin, text)
    if text == ".":
        return ()
    labels, label, i = [], bytearray(), 0
    raw = text.encode()
    absolute = False
    while i < len(raw):
        octet = raw[i]
        if octet == 0x5C:  # backslash
            if raw[i + 1 : i + 4].isdigit() and len(raw[i + 1 : i + 4]) == 3 and int(raw[i + 1 : i + 4]) < 256:
                label.append(int(raw[i + 1 : i + 4]))
                i += 4
            elif i + 1 < len(raw):
                label.append(raw[i + 1])
                i += 2
            else:
                raise BadNameError(f"expected a character after the backslash in {text!r}")
            continue
        i += 1
        if octet == 0x2E:
            labels.append(_label(bytes(label), text))
            label.clear()
            absolute = i == len(raw)
        else:
            label.append(octet)
    if not absolute:
        labels.append(_label(bytes(label), text))
        labels.extend(_relative(origin, text))
    name = tuple(labels)
    if sum(len(each) + 1 for each in name) + 1 > MAX_NAME:
        raise BadNameError(f"expected a name of at most {MAX_NAME} octets, got {text!r}")
    return name


def to_text(name: Name) -> str:
    """Write *name* as an absolute name in master-file form."""
    return "".join(_escape(label) + "." for label in name) or "."


def is_below(name: Name, ancestor: Name) -> bool:
    """Return whether *name* is *ancestor* or below it."""
    return len(name) >= len(ancestor) and name[len(name) - len(ancestor) :] == ancestor


def _relative(origin: Name | None, text: str) -> Name:
    if origin is None:
        raise BadNameError(f"expected an absolute name (with a dot at the end), got {text!r}")
    return origin


def _label(label: bytes, text: str) -> bytes:
    if not 0 < len(label) <= MAX_LABEL:
        raise BadNameError(f"expected labels of 1 to {MAX_LABEL} octets, got {len(label)} in {text!r}")
    return label.lower()


def _escape(label: bytes) -> str:
    return "".join(chr(c) if 0x21 <= c <= 0x7E and c not in b'.\\;"()@$' else f"\\{c:03d}" for c in label)
