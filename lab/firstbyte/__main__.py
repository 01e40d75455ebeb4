"""Entry point of ``firstbyte``.

Importing the commands takes half a second; Ctrl-C during that time prints one line instead of a traceback.
"""

import sys

#: Exit codes after Ctrl-C during start-up: 4 (invalid) for `run` and `drill`, which have measured nothing; 130, the
#: shell's convention, for all other commands.
INVALID, INTERRUPTED = 4, 130


def main() -> int:
    """Run the command line in `sys.argv`; return its exit code."""
    try:
        from firstbyte import cli  # noqa: PLC0415 - in the `try`, so that Ctrl-C during slow imports is handled

        return cli.main()
    except KeyboardInterrupt:
        verb = next(iter(sys.argv[1:]), "")
        if verb not in {"run", "drill"}:
            return INTERRUPTED
        # A running experiment handles SIGINT itself, so this exception means that no experiment has started.
        print(f"firstbyte {verb}: interrupted before anything was measured", file=sys.stderr)
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
