"""``firstbyte``, started: Ctrl-C is one line while the commands are still being read, too."""

import sys

#: What measures ends as every measurement that proves nothing does (see `firstbyte.cli`), the rest as a shell has it.
INVALID, INTERRUPTED = 4, 130


def main() -> int:
    """Run the command that this process was started with."""
    try:
        from firstbyte import cli  # noqa: PLC0415 - half a second, in which somebody may think better of it

        return cli.main()
    except KeyboardInterrupt:
        verb = next(iter(sys.argv[1:]), "")
        if verb not in {"run", "drill"}:
            return INTERRUPTED
        # An experiment that is under way answers for itself; here, there is none.
        print(f"firstbyte {verb}: interrupted before anything was measured", file=sys.stderr)
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
