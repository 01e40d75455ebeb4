"""``firstbyte new scenario|drill NAME``: writes a file that runs at once, to be changed step by step."""

import argparse
from importlib.resources import files
from pathlib import Path

from firstbyte.experiment import TAKEN
from runtime import UsageError


def new(args: argparse.Namespace) -> int:
    """Write ``NAME.py`` into the current folder.

    Raises:
        UsageError: the name is taken, or the file cannot be written.
    """
    if args.name in TAKEN:
        raise UsageError(f"the name {args.name!r} is taken by an experiment of firstbyte: choose another")
    path = Path(f"{args.name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template(args.kind, args.name))
    except FileExistsError:
        raise UsageError(f"{path} exists: remove it, or choose another name") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    verb = "run" if args.kind == "scenario" else "drill"
    print(f"{path} is written; try `firstbyte {verb} ./{path} --quick`, then the same with --control, which must fail")
    return 0


def template(kind: str, name: str) -> str:
    """Return the text of a new experiment: the template, with *name* in place of its own name."""
    text = (files("firstbyte") / "templates" / f"{kind}.py").read_text(encoding="utf-8")
    title = "".join(word.capitalize() for word in name.split("-"))
    return text.replace(f"my-{kind}", name).replace(f"My{kind.capitalize()}", title)
