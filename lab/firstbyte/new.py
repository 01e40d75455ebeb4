"""``firstbyte new scenario|drill NAME``: write a working experiment file as a starting point."""

import argparse
from importlib.resources import files
from pathlib import Path

from firstbyte.experiment import TAKEN
from runtime import UsageError


def new(args: argparse.Namespace) -> int:
    """Write ``NAME.py`` to the current folder.

    Raises:
        UsageError: the name is already used, or the file cannot be written.
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
    """Return the template for *kind* (``scenario`` or ``drill``), with the placeholder name replaced by *name*."""
    text = (files("firstbyte") / "templates" / f"{kind}.py").read_text(encoding="utf-8")
    title = "".join(word.capitalize() for word in name.split("-"))
    return text.replace(f"my-{kind}", name).replace(f"My{kind.capitalize()}", title)
