"""Tests that the wheel is complete, no room (top-level folder) is a package, and no standard module is shadowed."""

import sys
import tomllib
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
ROOMS = ("dns", "pki", "services", "loadtest", "lab")
PACKAGES = sorted(p.parent.relative_to(ROOT).as_posix() for room in ROOMS for p in ROOT.glob(f"{room}/*/__init__.py"))


def test_no_room_is_a_package() -> None:
    assert [room for room in ROOMS if (ROOT / room / "__init__.py").exists()] == []


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES


def test_no_package_has_the_name_of_a_standard_module() -> None:
    assert [p for p in PACKAGES if Path(p).name in sys.stdlib_module_names] == []


def test_no_room_holds_loose_modules() -> None:
    loose = [p.relative_to(ROOT).as_posix() for room in ROOMS for p in ROOT.glob(f"{room}/*.py")]
    assert [p for p in loose if p != "loadtest/locustfile.py"] == []


def test_the_wheel_holds_the_templates_of_reports() -> None:
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = {f"reports/templates/{path.name}" for path in (ROOT / "loadtest/reports/templates").iterdir()}
    assert "reports/templates/run.html" in templates
    assert templates <= packed
