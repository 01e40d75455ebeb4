"""Places that `hostfiles.layout` names are written nowhere else in code."""

import re

from tests.house.test_layout import ROOMS, ROOT

#: The admin port as a number, and paths that start a string; help texts and docstrings show them inside longer ones.
WRITTEN_OUT = re.compile(
    r"""(?<![\w.:/])9900\b|["']http://[^\s"']*:9900|["']/srv/(trust/root\.pem|token/admin\.token|etc/hosts\.toml|results)["']"""
)


def test_the_admin_port_and_shared_paths_have_one_home() -> None:
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.name != "layout.py"]
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if WRITTEN_OUT.search(line)
    ]
    assert len(sources) > 200
    assert lines == []
