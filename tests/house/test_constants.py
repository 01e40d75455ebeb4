"""Test that code does not repeat the constants of `hostfiles.layout`."""

import re

from tests.house.test_layout import ROOMS, ROOT

#: Pattern for the admin port as a number, and for shared paths at the start of a string.  Help texts and docstrings
#: contain such paths only in the middle of a string, so they do not match.
WRITTEN_OUT = re.compile(
    r"""(?<![\w.:/])9900\b|["']http://[^\s"']*:9900|"""
    r"""["']/srv/(trust/root\.pem|token/admin\.token|etc/hosts\.toml|results)["']"""
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
