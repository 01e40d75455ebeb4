"""``firstbyte completion SHELL``: print a shell script that completes commands, options and names.

`shtab` generates the script from the argument parser.  The names of hosts, links, scenarios and drills are part of the
script.
"""

import argparse
import tomllib
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import shtab

from drills import DRILLS
from firstbyte.cli import parser
from firstbyte.dns import name_servers
from runtime import Topology, find_project
from scenarios import SCENARIOS

#: Options whose value is a file name.
FILES = ("pcap", "keylog")


def completion(args: argparse.Namespace) -> int:
    """Print the completion script for the shell ``args.shell``."""
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """Return the completion script for *shell*: bash, zsh or fish."""
    project = find_project()
    links = tomllib.loads((project / "lab/etc/links.toml").read_text(encoding="utf-8"))
    names = {
        "host": [host.name for host in Topology.load(project).hosts if not host.one_shot],
        "server": list(name_servers()),
        "between": [f"{one}:{other}" for one, other in permutations(links["regions"], 2)],
        ("run", "name"): [*(each.name for each in SCENARIOS), "all"],
        ("drill", "name"): [*(each.name for each in DRILLS), "all"],
    }
    root = parser()
    for verb, command in _subcommands(root):
        for action in command._actions:  # noqa: SLF001 - argparse has no public list of subcommands
            if known := names.get(action.dest) or names.get((verb, action.dest)):
                action.choices = known
            elif action.dest in FILES:
                action.complete = shtab.FILE
    text: str = shtab.complete(root, shell)
    # By default bash treats the colon as a word break and would complete the two names in "access:near" separately.
    return f"COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}\n{text}" if shell == "bash" else text


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Any]]:
    """Yield the name and parser of each command, and of each of its subcommands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of subcommands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no public list of subcommands
            for name, command in action.choices.items():
                yield name, command
                yield from _subcommands(command)
