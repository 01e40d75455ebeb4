"""Faults that a service can inject into itself: off by default, seeded, counted, and listed on the admin port."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class UnknownFaultError(KeyError):
    """The service does not declare a fault with this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(name)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"expected one of {', '.join(self.known) or '(no faults declared)'}, got {self.name!r}"


@dataclass(slots=True)
class Fault:
    """A fault that a service can inject; `parameters` is None while the fault is off."""

    name: str
    help: str
    defaults: dict[str, Any]
    #: Allowed values of each parameter that has a fixed set of values, keyed by parameter name.
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: dict[str, Any] | None = None
    #: Number of times the fault has been injected since it was switched on.
    hits: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))


class Faults:
    """All faults that one service declares."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        #: Whether any fault is on.  Hot paths check this flag first.
        self.any_on = False
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call *callback* each time a fault is switched on or off."""
        self._callbacks.append(callback)

    def _changed(self) -> None:
        self.any_on = bool(self.active())
        for callback in self._callbacks:
            callback()

    def declare(self, name: str, help: str, **defaults: Any) -> None:  # noqa: A002 - the name that argparse uses
        """Declare a fault and the default values of its parameters; `switch_on` enforces the types of these values.

        If the default is a tuple of strings, the parameter accepts only these strings, and the first one is its
        default value.  Every fault also has the parameters ``probability``, ``seed`` and ``count``: the fault switches
        itself off after *count* injections in this process; 0 means no limit.
        """
        choices = {key: value for key, value in defaults.items() if isinstance(value, tuple)}
        first = {key: value[0] for key, value in choices.items()}
        self._faults[name] = Fault(
            name, help, {"probability": 1.0, "seed": 0, "count": 0, **defaults, **first}, choices
        )

    def switch_on(self, name: str, parameters: dict[str, Any]) -> Fault:
        """Switch the fault *name* on with *parameters*, using defaults for the rest.

        Raises:
            UnknownFaultError: the fault is not declared.
            ValueError: a parameter is unknown or has the wrong type or range.
        """
        fault = self._named(name)
        unknown = set(parameters) - set(fault.defaults)
        if unknown:
            raise ValueError(f"expected parameters among {sorted(fault.defaults)}, got {sorted(unknown)}")
        for key, value in parameters.items():
            wanted = type(fault.defaults[key])
            numeric = wanted in {int, float} and isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (numeric or isinstance(value, wanted)):
                raise ValueError(f"expected {key} to be {wanted.__name__}, got {value!r}")
            if key in fault.choices and value not in fault.choices[key]:
                raise ValueError(f"expected {key} to be one of {', '.join(fault.choices[key])}; got {value!r}")
        merged = {**fault.defaults, **parameters}
        if not 0 <= merged["probability"] <= 1:
            raise ValueError(f"expected probability between 0 and 1, got {merged['probability']!r}")
        if merged["count"] < 0:
            raise ValueError(f"expected count to be 0 or more, got {merged['count']!r}")
        fault.parameters, fault.hits, fault.rng = merged, 0, random.Random(merged["seed"])
        self._changed()
        return fault

    def switch_off(self, name: str) -> None:
        """Switch the fault *name* off."""
        self._named(name).parameters = None
        self._changed()

    def clear(self) -> None:
        """Switch all faults off."""
        for fault in self._faults.values():
            fault.parameters = None
        self._changed()

    def get(self, name: str) -> dict[str, Any] | None:
        """Return the parameters of the fault *name* if it is on, else None."""
        return self._named(name).parameters

    def hit(self, name: str, **place: str) -> dict[str, Any] | None:
        """Decide at random whether to inject the fault *name* now; if so, count the injection.

        Args:
            name: the declared fault.
            place: where the caller would inject the fault, as keyword arguments.  The fault is injected only if each of
                its parameters with one of these names is ``any`` or equal to the argument.

        Returns:
            The fault's parameters if the caller must inject it, else None.
        """
        fault = self._named(name)
        parameters = fault.parameters
        if parameters is None or any(parameters[key] not in {"any", value} for key, value in place.items()):
            return None
        if fault.rng.random() >= parameters["probability"]:
            return None
        fault.hits += 1
        if fault.hits == parameters["count"]:
            self.switch_off(name)
        return parameters

    def _named(self, name: str) -> Fault:
        try:
            return self._faults[name]
        except KeyError:
            raise UnknownFaultError(name, sorted(self._faults)) from None

    def as_dict(self) -> dict[str, Any]:
        """Return the response body of ``GET /admin/faults``."""
        return {
            f.name: {
                "on": f.parameters is not None,
                "parameters": f.parameters or f.defaults,
                "hits": f.hits,
                "help": f.help,
            }
            for f in self._faults.values()
        }

    def active(self) -> list[str]:
        """Return the names of all faults that are on."""
        return [f.name for f in self._faults.values() if f.parameters is not None]

    def __repr__(self) -> str:
        return f"<Faults on={self.active()} of {len(self._faults)}>"
