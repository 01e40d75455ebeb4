"""Variable substitution in the compose file, with values from the environment and `.env` files as in Compose.

Supported: ``$NAME``, ``${NAME}``, ``${NAME-default}``, ``${NAME:-default}``, ``${NAME?message}``, ``${NAME:?message}``
and ``$$`` for a dollar sign.  Unlike in Compose, a variable without a value or default is an error.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from netns_engine.errors import LabError

#: Environment variable that lists the `.env` files, separated by commas; by default, `.env` in the project is read.
FILES = "COMPOSE_ENV_FILES"
_REFERENCE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[^{}]*)\})?")
_BRACED = re.compile(r"([A-Za-z_]\w*)(?:(:?[-?])(.*))?", re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


def read(project: Path) -> dict[str, str]:
    """Return the variables for the compose file of *project*; the environment overrides the `.env` files.

    Raises:
        LabError: a file in `COMPOSE_ENV_FILES` cannot be read, or a line is not a valid assignment.
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
    """Parse the text of a `.env` file; raise `LabError` for a line that is not a valid assignment."""
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
    """Replace all variable references in *text*; raise `ValueError` if one is unsupported or has no value."""

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
