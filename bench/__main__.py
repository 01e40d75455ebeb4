"""``python bench [NAME …] [--json]``: run the measurements beside independent peers, one after the other.

Every file here that ends in a call of `main` is one; each says what it needs, and skips itself where a peer is missing.
They share two rules: an otherwise idle machine, and figures that were measured in this run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benches() -> list[str]:
    """Return the names of the measurements, in the order of the alphabet."""
    mine = (path for path in HERE.glob("*.py") if path.name != "__main__.py")
    return sorted(path.stem for path in mine if "\n    sys.exit(main())" in path.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Run those that were named, or all; return the worst exit code."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measurements beside independent peers.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python bench\n  python bench wan_delay lab_footprint --json",
    )
    parser.add_argument("name", nargs="*", help=f"of {', '.join(benches())}")
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
