"""TSIG keys in BIND's configuration syntax, as ``tsig-keygen`` writes and ``nsupdate -k`` reads them.

    key "update.example.com." { algorithm hmac-sha256; secret "c2VjcmV0…"; };

A file may hold several keys, and comments in the styles of C, C++ and the shell.
"""

import base64
import re
from pathlib import Path

from dnsmessage.errors import LocalError, NameSyntaxError
from dnsmessage.name import Name
from dnsmessage.tsig import ALGORITHMS, MIN_MAC, Key

#: Maximum size of a key file, in bytes: enough for a few hundred keys.
MAX_FILE = 64 << 10
_COMMENT = re.compile(r'("[^"\n]*")|/\*.*?\*/|(?:#|//)[^\n]*', re.DOTALL)
_KEY = re.compile(r'\s*key\s+("[^"\n]*"|[^\s{"]+)\s*\{([^{}]*)\}\s*;\s*')
_FIELD = re.compile(r'\s*(algorithm|secret)\s+("[^"\n]*"|[^\s;"]+)\s*;\s*')
_SHORT = {"hmac-md5": "hmac-md5.sig-alg.reg.int"}


class KeyFileError(LocalError):
    """A key file cannot be read or is malformed.  The message never shows a secret."""


def load_keys(path: Path) -> dict[Name, Key]:
    """Return the keys in the file *path*, keyed by name.

    Raises:
        KeyFileError: the file cannot be read or is malformed.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise KeyFileError(f"{path}: expected a key file of at most {MAX_FILE} bytes")
        return parse_keys(path.read_text(encoding="ascii"), str(path))
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: expected ASCII text") from None


def parse_keys(text: str, source: str = "<text>") -> dict[Name, Key]:
    """Return the keys in *text*, keyed by name; if *text* is malformed, raise `KeyFileError`, which names *source*."""
    text = _COMMENT.sub(lambda match: match[1] or " ", text)
    keys: dict[Name, Key] = {}
    at = 0
    while match := _KEY.match(text, at):
        key = _key(match[1].strip('"'), match[2], source)
        if key.name in keys:
            raise KeyFileError(f"{source}: expected key {key.name} once")
        keys[key.name] = key
        at = match.end()
    if text[at:].strip() or not keys:
        line = text[:at].count("\n") + 1
        raise KeyFileError(f'{source}:{line}: expected key "NAME" {{ algorithm hmac-sha256; secret "BASE64"; }};')
    return keys


def _key(name: str, body: str, source: str) -> Key:
    fields = {match[1]: match[2].strip('"') for match in _FIELD.finditer(body)}
    if set(fields) != {"algorithm", "secret"} or _FIELD.sub("", body).strip():
        raise KeyFileError(f"{source}: expected one algorithm and one secret in key {name}")
    try:
        algorithm, size = _algorithm(fields["algorithm"].lower().removesuffix("."))
        secret = base64.b64decode(fields["secret"], validate=True)
        key = Key(Name.from_text(name.removesuffix(".") + "."), algorithm, secret, size)
    except (NameSyntaxError, ValueError) as error:
        raise KeyFileError(f"{source}: expected {error} in key {name}") from None
    if not secret or (size and not max(MIN_MAC, key.full // 2) <= size <= key.full):
        raise KeyFileError(f"{source}: expected a secret, and MACs of at least half their length, in key {name}")
    return key


def _algorithm(text: str) -> tuple[Name, int]:
    """Return the algorithm's name and the length of its MACs in bytes: 16 for ``hmac-sha256-128``."""
    match = re.fullmatch(r"(hmac-[a-z0-9]+)-([0-9]{1,3})", text)
    text, bits = (match[1], int(match[2])) if match else (text, 0)
    algorithm = Name.from_text(_SHORT.get(text, text) + ".")
    if algorithm not in ALGORITHMS or bits % 8:
        known = ", ".join(sorted(name.labels[0].decode() for name in ALGORITHMS))
        raise ValueError(f"an algorithm of {known}")
    return algorithm, bits // 8
