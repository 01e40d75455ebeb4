"""``firstbyte completion SHELL``: a script for the shell that completes commands and the names that they take.

`shtab` makes it from the parser.  Names of hosts, links, scenarios and drills are written into the script.
"""

import argparse
import tomllib
from itertools import permutations

import shtab

from drills import DRILLS
from firstbyte.cli import parser
from runtime import Topology, find_project
from scenarios import SCENARIOS

#: Options that take the name of a file.
FILES = ("pcap", "keylog")


def completion(args: argparse.Namespace) -> int:
    """Print the script for ``args.shell``."""
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """Return the completion script for bash, zsh or fish."""
    project = find_project()
    links = tomllib.loads((project / "lab/etc/links.toml").read_text(encoding="utf-8"))
    names = {
        "host": [host.name for host in Topology.load(project).hosts if not host.one_shot],
        "between": [f"{one}:{other}" for one, other in permutations(links["regions"], 2)],
        ("run", "name"): [*(each.name for each in SCENARIOS), "all"],
        ("drill", "name"): [*(each.name for each in DRILLS), "all"],
    }
    root = parser()
    verbs = next(each for each in root._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001 - as shtab does
    for verb, command in verbs.choices.items():
        for action in command._actions:  # noqa: SLF001
            if known := names.get(action.dest) or names.get((verb, action.dest)):
                action.choices = known
            elif action.dest in FILES:
                action.complete = shtab.FILE
    text: str = shtab.complete(root, shell)
    # Bash would split "access:near" in three words, and complete each by itself.
    return f"COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}\n{text}" if shell == "bash" else text
