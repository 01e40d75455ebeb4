"""Tolerant access to JSON from other hosts: values of the wrong type or range are treated as missing."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from console.prometheus import LARGEST

#: Upper limit of X.509 dates in seconds since the epoch (RFC 5280 section 4.1.2.5); C libraries may fail beyond it.
YEAR_10000 = 253_402_300_800


def is_number(value: object) -> TypeGuard[float]:
    """Return whether *value* is a number of magnitude below `LARGEST`; larger JSON integers may overflow a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def time_in(body: Mapping[str, Any], key: str) -> float | None:
    """Return ``body[key]`` if it is within the range of X.509 times and durations in seconds, else None."""
    value = body.get(key)
    return value if is_number(value) and abs(value) < YEAR_10000 else None


def mapping_in(body: object, key: str) -> Mapping[str, Any]:
    """Return ``body[key]`` if it is an object, else an empty mapping."""
    value = body.get(key) if isinstance(body, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def texts_in(body: object, key: str) -> list[str]:
    """Return the strings in the list ``body[key]``, or an empty list if there is no such list."""
    value = body.get(key) if isinstance(body, Mapping) else None
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def entries_in(body: object, key: str, fields: Mapping[str, type]) -> Iterator[Mapping[str, Any]]:
    """Yield objects in the list ``body[key]`` that have all *fields* with the given types; float allows any number."""
    entries = body.get(key) if isinstance(body, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and all(
            is_number(entry.get(name)) if kind is float else isinstance(entry.get(name), kind)
            for name, kind in fields.items()
        ):
            yield entry
