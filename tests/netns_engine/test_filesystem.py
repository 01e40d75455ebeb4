"""Test for a host's view of the machine's files, in a separate mount namespace."""

import subprocess
import sys

import pytest

COVER = """
import sys
from pathlib import Path
from netns_engine import filesystem, namespaces
namespaces.make_mounts_private()
covered, clone, interpreter = map(Path, sys.argv[1:])
filesystem._cover(covered, "mode=1777,size=1m", kept=(clone, interpreter, Path("/usr")))
print(sorted(str(path.relative_to(covered)) for path in covered.rglob("*")), (clone / "pyproject.toml").read_text())
"""


def test_a_checkout_below_a_folder_that_is_covered_is_still_there_and_nothing_else(tmp_path):
    covered = tmp_path / "tmp"
    clone, inside = covered / "somebody" / "clone", covered / "somebody" / "clone" / "venv"
    inside.mkdir(parents=True)
    (clone / "pyproject.toml").write_text("the project")
    (covered / "secret").write_text("of another user")
    child = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", COVER, covered, clone, inside],
        check=False,
        capture_output=True,
        text=True,
    )
    if "unshare failed" in child.stderr:
        pytest.skip(f"this user can not have a mount namespace: {child.stderr.strip()}")
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == (
        "['somebody', 'somebody/clone', 'somebody/clone/pyproject.toml', 'somebody/clone/venv'] the project"
    )
    assert (covered / "secret").read_text() == "of another user"
