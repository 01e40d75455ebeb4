"""Variables of the compose file: ``${NAME:-default}``, filled from the environment and `.env` files as Compose does.

Supported: ``$NAME``, ``${NAME}``, ``${NAME-default}``, ``${NAME:-default}``, ``${NAME?message}``, ``${NAME:?message}`` and
``$$`` for a dollar sign.  Unlike Compose, a variable without a value and without a default is an error.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from netns_engine.errors import LabError

#: Environment variable that names the `.env` files, separated by commas; the default is `.env` in the project.
FILES = "COMPOSE_ENV_FILES"
_REFERENCE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[^{}]*)\})?")
_BRACED = re.compile(r"([A-Za-z_]\w*)(?:(:?[-?])(.*))?", re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


def read(project: Path) -> dict[str, str]:
    """Return the variables for the compose file of *project*: those of the `.env` files, then the environment.

    Raises:
        LabError: a file that `COMPOSE_ENV_FILES` names cannot be read, or a line is no assignment.
    """
    found: dict[str, str] = {}
    named = os.environ.get(FILES)
    for path in (Path(each) for each in named.split(",")) if named else (project / ".env",):
        try:
            found |= parse(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            if named or not isinstance(error, FileNotFoundError):
                raise LabError(f"{path}: {error.strerror}") from None
    return {**found, **os.environ}


def parse(text: str, path: str = ".env") -> dict[str, str]:
    """Return the assignments of a `.env` file; raise `LabError` for a line that is none."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is None:
            raise LabError(f"{path}:{number}: expected NAME=VALUE, got {line.strip()!r}")
        value = match[2]
        quoted = re.fullmatch(r"(['\"])(.*?)\1\s*(?:#.*)?", value)
        found[match[1]] = quoted[2] if quoted else re.sub(r"\s+#.*", "", value).rstrip()
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return *text* with its references replaced; raise `ValueError` for one that has no value or is not supported."""

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        inner = match["plain"] or match["braced"]
        parts = _BRACED.fullmatch(inner or "")
        if parts is None:
            raise ValueError(f"expected $NAME, ${{NAME}} or ${{NAME:-default}}, got {text!r}")
        name, operator, rest = parts[1], parts[2] or "", parts[3] or ""
        value = values.get(name)
        if value is not None and (value or not operator.startswith(":")):
            return value
        if operator.endswith("-"):
            return rest
        raise ValueError(f"expected a value for ${{{name}}}: {rest or 'set it in the environment or in .env'}")

    return _REFERENCE.sub(replace, text)
