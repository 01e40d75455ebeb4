"""Validators for single values, shared by link settings, drop rules and capture filters.

A validator takes a key and a value, and returns the validated value or raises `SettingError`.
"""

from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address
from typing import Any

from wan.errors import SettingError

Check = Callable[[str, object], Any]


def checked(values: Mapping[str, object], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return *values* with each value validated by the check for its key.

    Raises:
        SettingError: a key is unknown, or its value fails its check.
    """
    for key in values:
        if key not in checks:
            raise SettingError(key, f"one of {', '.join(checks)}", key)
    return {key: checks[key](key, value) for key, value in values.items()}


def number(top: float, what: str) -> Check:
    """Return a validator for numbers from 0 to *top*; *what* describes the accepted range in the error message."""

    def check(key: str, value: object) -> float:
        # NaN fails every comparison, so `not 0 <= value <= top` also rejects NaN.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
            raise SettingError(key, f"{key} to be {what}", value)
        return float(value)

    return check


def integer(bottom: int, top: int) -> Check:
    """Return a validator for integers from *bottom* to *top*, both inclusive."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not bottom <= value <= top:
            raise SettingError(key, f"{key} to be a whole number between {bottom} and {top}", value)
        return value

    return check


def choice(choices: Collection[str]) -> Check:
    """Return a validator for strings that must be one of *choices*."""

    def check(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise SettingError(key, f"{key} to be one of {', '.join(choices)}", value)
        return value

    return check


def address(key: str, value: object) -> str:
    """Validate an IPv4 address in dotted notation and return its canonical form."""
    try:
        return str(IPv4Address(value if isinstance(value, str) else ""))
    except ValueError:
        raise SettingError(key, f"{key} to be an IPv4 address", value) from None


def boolean(key: str, value: object) -> bool:
    """Validate that *value* is a boolean and return it."""
    if not isinstance(value, bool):
        raise SettingError(key, f"{key} to be true or false", value)
    return value


port = integer(1, 65_535)
