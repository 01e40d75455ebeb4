"""``python bench [NAME …] [--json]``: run benchmarks that compare this project with independent programs.

A benchmark is a file in this folder that calls `main` at its end. Its docstring lists the required programs; if an
optional one is not installed, that comparison is skipped. Run benchmarks on an otherwise idle machine. All figures of a
comparison are measured in the same run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benches() -> list[str]:
    """Return the names of the benchmarks, sorted."""
    files = (path for path in HERE.glob("*.py") if path.name != "__main__.py")
    return sorted(path.stem for path in files if "\n    sys.exit(main())" in path.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Run the named benchmarks, or all of them; return the highest exit code."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Compare with independent peers.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python bench\n  python bench wan_delay lab_footprint --json",
    )
    parser.add_argument("name", nargs="*", help=f"one of {', '.join(benches())}; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON document for each")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.name) - set(benches())):
        parser.error(f"expected {', '.join(benches())}; got {', '.join(unknown)}")
    worst = 0
    for name in args.name or benches():
        if not args.json:
            print(f"\n=== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--json"] if args.json else [])]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
