"""argparse types for command-line arguments.  Each raises `argparse.ArgumentTypeError` with a one-line message."""

import math
import re
from argparse import ArgumentTypeError

from hostfiles.layout import ADMIN_PORT
from telemetry import endpoint

#: Payload corruption modes, with the names that `wan.damage` uses.
CORRUPTIONS = ("bitflip", "swap16", "plusminus", "random")
#: Multipliers for bit-rate suffixes.
FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9}


def tail(text: str) -> str:
    """Parse a line count for ``--tail``: digits or ``all``."""
    if text != "all" and not (text.isascii() and text.isdecimal()):
        raise ArgumentTypeError(f"expected a number of lines or all, got {text!r}")
    return text


def pair(text: str) -> tuple[str, str]:
    """Parse a pair of regions, ``REGION:REGION``."""
    first, _, second = text.partition(":")
    if not first or not second:
        raise ArgumentTypeError(f"expected REGION:REGION, for example access:near; got {text!r}")
    return first, second


def milliseconds(text: str) -> float:
    """Parse a duration such as ``80``, ``80ms`` or ``0.08s``; return milliseconds, at most one minute."""
    number, factor = (text[:-1], 1000.0) if text.endswith("s") and not text.endswith("ms") else (text, 1.0)
    try:
        value = float(number.removesuffix("ms")) * factor
    except ValueError:
        raise ArgumentTypeError(f"expected milliseconds, for example 80 or 80ms; got {text!r}") from None
    if not 0 <= value <= 60_000:
        raise ArgumentTypeError(f"expected 0 to 60000 ms, got {text!r}")
    return value


def probability(text: str) -> float:
    """Parse a probability such as ``0.01`` or ``1%``; return a value from 0 to 1."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a probability, for example 0.01 or 1%; got {text!r}") from None
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"expected 0 to 1 (or 0% to 100%), got {text!r}")
    return value


def bit_rate(text: str) -> int:
    """Parse a bit rate such as ``10M``, ``512k`` or plain bits per second; 0 means unlimited."""
    try:
        value = float(text[:-1]) * FACTORS[text[-1]] if text[-1:] in FACTORS else float(text)
    except ValueError:
        raise ArgumentTypeError(f"expected bits per second, for example 10M or 512k; got {text!r}") from None
    if value and not 1e3 <= value <= 1e11:  # NaN fails both comparisons, so it is rejected here too
        raise ArgumentTypeError(f"expected 0 (unlimited) or 1k to 100G bits per second, got {text!r}")
    return int(value)


def corruption(text: str) -> dict[str, float]:
    """Parse ``MODE:P`` or ``plusminus:P:K`` (P: probability); return the corresponding link settings."""
    mode, *values = text.split(":")
    if mode not in CORRUPTIONS or not values or len(values) > (2 if mode == "plusminus" else 1):
        raise ArgumentTypeError(
            f"expected MODE:P with a mode of {', '.join(CORRUPTIONS)}, for example swap16:5%; got {text!r}"
        )
    settings: dict[str, float] = {f"corrupt_{mode}": probability(values[0])}
    if values[1:]:
        if not values[1].isdecimal() or not 1 <= int(values[1]) <= 65_535:
            raise ArgumentTypeError(f"expected K between 1 and 65535, got {values[1]!r}")
        settings["corrupt_k"] = int(values[1])
    return settings


def life(text: str) -> float:
    """Parse the lifetime of a certificate in seconds, from 10 to 3600."""
    return _seconds(text, 10, 3600)


def limit(text: str) -> float:
    """Parse a time limit in seconds, from 1 to 600."""
    return _seconds(text, 1, 600)


def clients(text: str) -> int:
    """Parse the number of clients that run at the same time, from 1 to 64."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 64:
        raise ArgumentTypeError(f"expected a whole number from 1 to 64, got {text!r}")
    return int(text)


def port(text: str) -> int:
    """Parse a TCP port; reject the admin server's port."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 65_535 or int(text) == ADMIN_PORT:
        raise ArgumentTypeError(f"expected a port from 1 to 65535 other than {ADMIN_PORT}, got {text!r}")
    return int(text)


def connections(text: str) -> int:
    """Parse the size of a connection pool."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1_000_000:
        raise ArgumentTypeError(f"expected a whole number from 1 to 1000000, got {text!r}")
    return int(text)


def repeats(text: str) -> int:
    """Parse the number of consecutive runs of an experiment."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ArgumentTypeError(f"expected a whole number from 1 to 100, got {text!r}")
    return int(text)


def ttl(text: str) -> int:
    """Parse the TTL of a record in seconds."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 2**31 - 1:
        raise ArgumentTypeError(f"expected seconds from 0 to {2**31 - 1}, got {text!r}")
    return int(text)


def wait(text: str) -> float:
    """Parse a waiting time; return seconds, at most one hour."""
    return _seconds(text, 0, 3600)


def server(text: str) -> str:
    """Validate the address of a TLS server, ``HOST:PORT``."""
    host, port = endpoint(text)
    if port == 0:
        raise ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return f"{host}:{port}"


def experiment_name(text: str) -> str:
    """Validate the name of a new experiment, which is used in a file name, a results folder and a console URL."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        raise ArgumentTypeError(f"expected lower-case words joined by hyphens, for example my-scenario; got {text!r}")
    return text


def _seconds(text: str, low: int, high: int) -> float:
    """Parse a time in seconds, from *low* to *high*."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ArgumentTypeError(f"expected seconds from {low} to {high}, got {text!r}")
    return value
