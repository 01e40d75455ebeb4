"""Parameters of an experiment: a frozen dataclass whose fields declare a unit, bounds, and a value for quick runs.

@dataclass(frozen=True, slots=True)
class Parameters:
    rate: float = parameter(200, quick=100, unit="requests/s", low=1, high=2000, help="open-loop arrivals")
    rtt_ms: tuple[float, ...] = parameter((20, 60, 100), unit="ms", low=5, high=500, least=3, help="for a slope")

    def __post_init__(self) -> None:  # validates a combination of parameters
        if self.rate < …:
            raise ParameterError("expected …, got …")

bind(Parameters, quick=True, given=["rate=300"])
"""

import math
from collections.abc import Iterable
from dataclasses import Field, asdict, field, fields
from typing import Any, TypeVar, get_type_hints

P = TypeVar("P")


class ParameterError(Exception):
    """An unknown parameter or an invalid value; the message is one line for the user.

    Args:
        message: what was expected and what the user gave.
        name: the unknown parameter name, from which a similar name is suggested; "" if the value is invalid.
        known: names of all parameters of the experiment.
    """

    def __init__(self, message: str, name: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.name, self.known = name, tuple(known)


def parameter(
    full: Any,
    *,
    quick: Any = None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    least: int = 1,
    choices: tuple[str, ...] = (),
    help: str,  # noqa: A002 - argparse uses the same argument name
) -> Any:
    """Declare one parameter as a dataclass field.

    Args:
        full: default value.
        quick: default value with ``--quick``; None: the same as *full*.
        unit: unit of the value.
        low: smallest allowed value; for a tuple, of each element.
        high: largest allowed value; for a tuple, of each element.
        least: minimum number of different elements of a tuple; a linear fit needs three, because a line through two
            points is always exact.
        choices: allowed values of a string parameter; empty: any string.
        help: description in a few words.
    """
    about = {"quick": quick, "unit": unit, "low": low, "high": high, "choices": choices, "help": help}
    if least > 1:
        about["least"] = least
    return field(default=full, metadata=about)


def bind(kind: type[P], *, quick: bool, given: Iterable[str] = ()) -> P:
    """Return the parameters of one run: the defaults, with the values from the command line applied.

    Args:
        kind: dataclass with the parameters.
        quick: use the defaults for quick runs.
        given: ``name=value`` arguments from the command line; elements of a tuple are separated by commas.

    Raises:
        ParameterError: a name is unknown, a value has the wrong type or is out of bounds, a tuple has too few different
            elements, or ``__post_init__`` of *kind* rejects the combination.
    """
    declared: dict[str, Field[Any]] = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # dataclass
    hints = get_type_hints(kind)
    values = {
        name: each.metadata["quick"] if quick and each.metadata["quick"] is not None else each.default
        for name, each in declared.items()
    }
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ParameterError(f"expected NAME=VALUE, got {text!r}")
        if name not in declared:
            raise ParameterError(
                f"expected a parameter of {', '.join(declared) or '(none)'}; got {name!r}", name, declared
            )
        values[name] = _parse(name, value.strip(), hints[name], declared[name].metadata)
    return kind(**values)


def describe(kind: type[Any]) -> list[dict[str, Any]]:
    """Return one dict per parameter with its name, defaults, unit, bounds and help, for ``--list``."""
    return [
        {"name": each.name, "full": each.default,
         **{key: value for key, value in each.metadata.items() if value not in {None, ""} and value != ()}}
        for each in fields(kind)
    ]  # fmt: skip


def as_json(parameters: Any) -> dict[str, Any]:
    """Return the parameter values, keyed by name."""
    return asdict(parameters)


def units(kind: type[Any]) -> dict[str, str]:
    """Return the unit of each parameter, keyed by name; "" for a parameter without a unit."""
    return {each.name: each.metadata["unit"] for each in fields(kind)}


def _parse(name: str, text: str, hint: Any, about: Any) -> Any:
    many = getattr(hint, "__origin__", None) is tuple
    element = hint.__args__[0] if many else hint
    parts = [part.strip() for part in text.split(",")] if many else [text]
    values = [_one(name, part, element, about) for part in parts]
    if len(set(values)) < about.get("least", 1):
        raise ParameterError(f"expected {name} to be at least {about['least']} different values, got {text}")
    return tuple(values) if many else values[0]


def _one(name: str, text: str, kind: Any, about: Any) -> Any:
    if kind is bool:
        if text.lower() not in {"true", "false", "yes", "no", "1", "0"}:
            raise ParameterError(f"expected {name} to be true or false, got {text!r}")
        return text.lower() in {"true", "yes", "1"}
    if kind is str:
        if about["choices"] and text not in about["choices"]:
            raise ParameterError(f"expected {name} to be one of {', '.join(about['choices'])}; got {text!r}")
        return text
    unit = f" ({about['unit']})" if about["unit"] else ""
    words = ("a whole number" if kind is int else "a number") + unit
    try:
        value = kind(text)
    except ValueError:
        raise ParameterError(f"expected {name} to be {words}, got {text!r}") from None
    low, high = about["low"], about["high"]
    lowest, highest = -math.inf if low is None else low, math.inf if high is None else high
    if not lowest <= value <= highest or math.isinf(value):  # NaN fails every comparison, so this also rejects NaN
        raise ParameterError(f"expected {name} to be {words} from {lowest:g} to {highest:g}, got {text}")
    return value
