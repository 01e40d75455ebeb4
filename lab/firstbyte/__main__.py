"""Starts ``firstbyte``; Ctrl-C during the half second of imports is one line, not a traceback."""

import sys

#: Exit codes after Ctrl-C: of an experiment, which then proves nothing; of everything else, the shell's custom.
INVALID, INTERRUPTED = 4, 130


def main() -> int:
    """Run the command that this process was started with."""
    try:
        from firstbyte import cli  # noqa: PLC0415 - inside the `try`: imports take time in which Ctrl-C may come

        return cli.main()
    except KeyboardInterrupt:
        verb = next(iter(sys.argv[1:]), "")
        if verb not in {"run", "drill"}:
            return INTERRUPTED
        # A run that is under way handles the signal itself: here, none has begun.
        print(f"firstbyte {verb}: interrupted before anything was measured", file=sys.stderr)
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
