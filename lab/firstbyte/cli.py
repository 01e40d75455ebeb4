"""Command-line parser: every command with its options, and one-line errors for invalid command lines.

Importing this module is fast: the modules that commands need (`dispatch`) are imported only after parsing.
"""

import argparse
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from firstbyte import arguments, terminal
from firstbyte.dns_arguments import add_dns
from firstbyte.lesson_arguments import add_lesson
from firstbyte.pki_arguments import add_pki
from planner.inputs import INPUTS, option

#: Same values as `runtime.RUNTIMES`, repeated here so that start-up does not import that package.
RUNTIMES = ("docker", "netns")
SHELLS = ("bash", "zsh", "fish")
#: Same values as `planner.settings.FORMATS`.
FORMATS = ("nginx", "haproxy", "envoy", "sysctl")
EXIT_CODES = """\
exit codes:
  0  done; the verdict is pass or skipped
  1  a check or a verdict failed; with --control this is what should happen, and 0 is a defect
  2  the command line is wrong
  3  no runtime answers, or the lab is not up
  4  the measurement is invalid: it proves nothing either way

with --json, the result is JSON on standard output, and an error is one line of JSON on standard error:
  {"error": {"command": "status", "message": "the lab is not up: …", "exit_code": 3}}"""


class MisuseError(Exception):
    """The command line is invalid."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.verb = parser.prog.partition(" ")[2]


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `MisuseError` with a one-line message and a suggestion, instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise `MisuseError` with *message*."""
        if wrong := re.match(r"argument (.+?): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            what, word, known = wrong[1], wrong[2], re.findall(r"[\w.-]+", wrong[3])
            if what == "COMMAND":
                suggested = terminal.meant(word, known) or "; `firstbyte --help` lists the commands"
                message = f"unknown command {word!r}{suggested}"
            else:
                message = f"{what}: expected one of {', '.join(known)}; got {word!r}{terminal.meant(word, known)}"
        elif missing := re.fullmatch(r"the following arguments are required: (.*)", message):
            message = f"expected {missing[1]}, got none; see `{self.prog} --help`"
        raise MisuseError(self, message.removeprefix("argument "))


def main(argv: list[str] | None = None) -> int:
    """Parse and run one command; return its exit code (see `EXIT_CODES`).

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed before the command had any changes to undo or results to save.
        SystemExit: the exit code is 0, after ``--help`` or ``--version``.
    """
    words = sys.argv[1:] if argv is None else argv
    ours = words[: words.index("--")] if "--" in words else words
    terminal.prepare(ascii_only="--ascii" in ours)
    try:
        args = parse(words)
    except MisuseError as error:
        return terminal.complain(error.verb, str(error), 2, as_json="--json" in ours)
    from firstbyte import dispatch  # noqa: PLC0415 - takes half a second, which --help and usage errors do not need

    return dispatch.execute(args)


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line *words*.

    Raises:
        MisuseError: *words* are not a valid command line.
    """
    args, rest = parser().parse_known_args(words)
    if rest[:1] == ["--"] and "words" in args:
        # argparse ends a list of words at the first option, as in `join IMAGE --name NAME -- COMMAND`.
        args.words, rest = [*args.words, *rest[1:]], []
    if not rest:
        return args
    understood: argparse.ArgumentParser = args.parser
    word = rest[0].partition("=")[0]
    if word.startswith("-"):
        known = [option for action in understood._actions for option in action.option_strings]  # noqa: SLF001 - argparse has no public list of options
        if word in known:
            raise MisuseError(understood, f"expected {word} after the command, as in `{understood.prog} … {word}`")
        raise MisuseError(understood, f"unknown option {word}{terminal.meant(word, known)}")
    raise MisuseError(understood, f"unexpected word {word!r}; see `{understood.prog} --help`")


def parser() -> Parser:
    """Return the parser for all commands."""
    root = Parser(
        prog="firstbyte",
        description="Everything that happens before the first byte: a miniature internet, measured.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"examples:\n  firstbyte up\n  firstbyte trace https://www.example.com/\n\n{EXIT_CODES}",
    )
    root.add_argument("--version", action="version", version=f"firstbyte {version('firstbyte')}")
    _everywhere(root)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    groups = (
        _lab, _hosts, _links, add_dns, _trace, _experiments, _subjects, _plan, _audit, _results, add_pki, add_lesson,
        _own,
    )  # fmt: skip
    for add in groups:
        add(lambda *words, **options: _command(commands, *words, **options))
    # Default command of the Compose service `lab`; without a help text, argparse omits it from the list of commands.
    idle = commands.add_parser("idle", description="Wait for SIGTERM (the default command of the service lab).")
    idle.set_defaults(parser=idle)
    return root


Add = Callable[..., argparse.ArgumentParser]


def _command(
    commands: "argparse._SubParsersAction[Parser]", name: str, about: str, *examples: str, as_json: str = ""
) -> argparse.ArgumentParser:
    """Add the command *name*; *as_json* describes the output of ``--json`` (empty: no such option)."""
    made = commands.add_parser(
        name,
        help=about,
        description=about[:1].upper() + about[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n" + "\n".join(f"  firstbyte {each}" for each in examples),
    )
    made.set_defaults(parser=made)
    _everywhere(made, default=argparse.SUPPRESS)
    if as_json:
        made.add_argument("--json", action="store_true", help=as_json)
    return made


def _everywhere(parser: argparse.ArgumentParser, **default: Any) -> None:
    """Add the global options, which are accepted both before and after the command name."""
    about = "default: the one in which the lab is up; else Docker if an engine answers, else netns"
    parser.add_argument("--runtime", choices=RUNTIMES, help=about, **default)
    parser.add_argument("--ascii", action="store_true", help="print ASCII only, as with LC_ALL=C", **default)


def _lab(add: Add) -> None:
    up = add("up", "start the lab and wait until it is healthy", "up", "up --runtime netns --no-ports")
    up.add_argument("--load", action="store_true", help="start Locust as well")
    up.add_argument("--quic", action="store_true", help="start the HTTP/3 server as well")
    up.add_argument("--no-ports", action="store_true", help="publish nothing on 127.0.0.1 (netns only)")
    up.add_argument("--no-build", action="store_true", help="use the Docker image as it is")
    down = add("down", "remove everything that up made", "down", "down --keep-ca")
    down.add_argument("--keep-ca", action="store_true", help="keep the volumes: the CA, certificates, results")
    status = add(
        "status",
        "show state, health, address and faults of each host",
        "status",
        "status --memory --json",
        as_json="as one JSON object",
    )
    status.add_argument("--memory", action="store_true", help="resident memory of each host")
    add(
        "doctor",
        "check whether this machine can run a lab and measure in it",
        "doctor",
        "doctor --json",
        as_json="as one JSON object",
    )


def _hosts(add: Add) -> None:
    logs = add("logs", "show logs of hosts", "logs edge --tail 20", "logs --follow ca edge")
    logs.add_argument("host", nargs="*", help="default: all")
    logs.add_argument("--follow", "-f", action="store_true", help="print new entries until Ctrl-C")
    logs.add_argument(
        "--tail", type=arguments.tail, default="all", metavar="N", help="only the last N lines of each host"
    )
    execute = add(
        "exec",
        "run a command with the network and resolver of a host",
        "exec client -- cat /proc/net/sockstat",
        "exec edge -- python -m telemetry.call GET /admin/pool",
    )
    execute.add_argument("host")
    execute.add_argument("cmd", nargs=argparse.REMAINDER, metavar="-- CMD")
    for verb, about in (
        ("stop", "stop hosts (SIGTERM)"),
        ("start", "start hosts that were stopped or killed"),
        ("restart", "stop and start hosts, and wait until they are healthy; with netns, this loads changed code"),
        ("kill", "kill hosts (SIGKILL), as a power cut would"),
        ("pause", "freeze hosts: they stay reachable but do not answer"),
        ("unpause", "let paused hosts continue"),
    ):
        add(verb, about, f"{verb} catalog-1", f"{verb} ns1 ns2").add_argument("host", nargs="+")


def _links(add: Add) -> None:
    link = add(
        "link",
        "show links between regions, or change one",
        "link",
        "link access:near --rtt 80ms --loss 1%",
        "link access:near --duplicate 1% --reorder 1% --corrupt swap16:5%",
        "link access:near --reset",
        as_json="each direction of each link as JSON",
    )
    link.add_argument("between", nargs="?", type=arguments.pair, metavar="REGION:REGION")
    for name, kind, metavar, about in (
        ("rtt", arguments.milliseconds, "MS", "round-trip time"),
        ("jitter", arguments.milliseconds, "MS", "each packet is delayed by up to this much more"),
        ("loss", arguments.probability, "P", "share of packets that are lost: 0.01 or 1%%"),
        ("rate", arguments.bit_rate, "BITS", "bits per second: 10M, 512k; 0 is unlimited"),
        ("duplicate", arguments.probability, "P", "share of packets that arrive twice"),
        ("reorder", arguments.probability, "P", "share of packets that are held back, so that others overtake them"),
        ("reorder-by", arguments.milliseconds, "MS", "how long these are held back (10)"),
    ):
        link.add_argument(f"--{name}", type=kind, metavar=metavar, help=about)
    link.add_argument(
        "--corrupt",
        type=arguments.corruption,
        action="append",
        metavar="MODE:P",
        help="damage payloads: bitflip (a checksum detects it), swap16 and plusminus (none does), random; "
        "plusminus:P:K adds K to one word and subtracts it from another",
    )
    link.add_argument("--one-way", action="store_true", help="only from the first region to the second")
    link.add_argument("--reset", action="store_true", help="back to what links.toml says")


def _trace(add: Add) -> None:
    trace = add(
        "trace",
        "measure one request phase by phase, next to its prediction",
        "trace https://www.example.com/",
        "trace https://far.example.com/bytes/50000 --tls 1.2 --json",
        "trace https://www.example.com/ --packets --pcap www.pcap --keylog www.keys",
        as_json="phases, hops and certificates as one JSON object",
    )
    trace.add_argument("url")
    trace.add_argument("--tls", choices=["1.2", "1.3"], help="allow only this version of TLS")
    trace.add_argument(
        "--dns", choices=["udp", "tcp", "tls", "https"], default="udp", help="how to ask the resolver (default udp)"
    )
    trace.add_argument("--cold", action="store_true", help="do not repeat the request with warm caches")
    trace.add_argument("--no-resume", action="store_true", help="full TLS handshakes only, also when warm")
    trace.add_argument("--packets", action="store_true", help="every segment with its Ethernet, IP and TCP headers")
    trace.add_argument("--pcap", type=Path, metavar="FILE", help="write the packets as the client saw them")
    trace.add_argument("--svg", type=Path, metavar="FILE", help="draw the cold request's packets as a ladder diagram")
    trace.add_argument("--keylog", type=Path, metavar="FILE", help="write the TLS secrets, for Wireshark and tshark")
    seen = add(
        "encryption",
        "send one text in four ways, and show who can read it: the network, the edge, the origin, the database",
        "encryption",
        "encryption 'meet at noon' --json",
        as_json="what each place has, as one JSON object",
    )
    seen.add_argument("text", nargs="?", default="meet me at noon", help="what to send (default: meet me at noon)")


def _experiments(add: Add) -> None:
    for verb, about, examples in (
        (
            "run",
            "measure what a mechanism costs, next to what theory says",
            (
                "run handshake --quick",
                "run time-wait --set rate=128",
                "run handshake --quick --times 5",
                "run all --quick",
                "run ./mine.py --quick",
                "run --list",
            ),
        ),
        (
            "drill",
            "rehearse a certificate renewal that goes wrong",
            (
                "drill renewal-under-load --quick",
                "drill renewal-under-load --quick --control",
                "drill renewal-under-load --times 3",
                "drill ./mine.py --quick",
                "drill --list",
            ),
        ),
    ):
        one = add(verb, about, *examples, as_json="the result as JSON on standard output")
        one.add_argument(
            "name",
            nargs="?",
            help="a name from --list; all; a Python file (see `firstbyte new`); or - for a file on standard input",
        )
        one.add_argument("--list", action="store_true", help="list names, what each shows, and its parameters")
        one.add_argument("--undo", action="store_true", help="undo what a killed run left switched on in the lab")
        one.add_argument("--operated", action="store_true", help=argparse.SUPPRESS)
        one.add_argument("--quick", action="store_true", help="smaller windows and rates: at most 40 s each")
        one.add_argument(
            "--control", action="store_true", help="take the safety, or the right model, away: the run must then fail"
        )
        one.add_argument(
            "--seed", type=int, default=1, metavar="N", help="of injections and of the order of measurements (1)"
        )
        one.add_argument(
            "--times",
            type=arguments.repeats,
            default=1,
            metavar="N",
            help="run N times with the same seed, and judge the runs together",
        )
        one.add_argument("--junit", metavar="FILE", help="write the checks of all runs to FILE as JUnit XML, for CI")
        one.add_argument(
            "--target", metavar="NAME", help="test a program that has joined the lab (drill: renewal-under-load, year)"
        )
        one.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter, see --list")


def _subjects(add: Add) -> None:
    join = add(
        "join",
        "add your own program to the lab: an image or a container with Docker, a command in namespaces",
        "join my-image:latest --name mine.example.com",
        "join my-image:latest --name mine.example.com -- env HOOK=no /serve.sh",
        "join --container my-container --name mine.example.com --region far",
        "join --name mine.example.com -- ./serve.sh",
        as_json="the subject as one JSON object",
    )
    join.add_argument(
        "words", nargs="*", metavar="IMAGE | -- COMMAND", help="an image, -- and its command; or -- and a local program"
    )
    join.add_argument("--container", metavar="NAME", help="join a running container instead (Docker)")
    join.add_argument("--name", required=True, help="its DNS name, such as mine.example.com")
    join.add_argument("--region", default="near", help="region to join: near, far, access, … (near)")
    join.add_argument("--port", type=arguments.port, default=443, help="port on which it serves (443)")
    join.add_argument("--address", metavar="IPV4", help="default: a free address of the region")
    join.add_argument(
        "--wait", type=arguments.limit, default=60.0, metavar="S", help="time for it to listen on its port (60)"
    )
    join.add_argument(
        "--life", type=arguments.life, metavar="S", help="certificate lifetime (an hour); 30 suits `drill --target`"
    )
    leave = add("leave", "remove programs that have joined", "leave mine.example.com", "leave --all")
    leave.add_argument("name", nargs="?", help="DNS name, or its first label")
    leave.add_argument("--all", action="store_true", help="remove all programs that have joined")


def _plan(add: Add) -> None:
    plan = add(
        "plan",
        "predict what the mechanisms cost for your own numbers",
        "plan --rps 20000 --rtt 30ms --ttl 60s --hold 25ms --keepalive 0.9 --clients 10M",
        "plan --rps 15k..20k --rtt 20ms..40ms --tls 1.2 --key rsa --json",
        "plan --rps 20000 --settings nginx",
        "plan --rps 20000 --clients 10M --simulate --picture plan.svg",
        "plan --rps 20000 --verify",
        as_json="inputs, costs and rows as one JSON object",
    )
    for each in INPUTS:
        plan.add_argument(
            option(each.name), metavar=each.kind.upper(), help=f"{each.about} ({each.default})".replace("%", "%%")
        )
    plan.add_argument("--tls", choices=["1.3", "1.2", "none"], default="1.3", help="between client and edge (1.3)")
    plan.add_argument("--key", choices=["ecdsa", "rsa"], help="type of the server's key (ecdsa)")
    plan.add_argument(
        "--pool", type=arguments.connections, metavar="N", help="connections in the pool; default: planned"
    )
    plan.add_argument(
        "--calibrate", action="store_true", help="measure the CPU costs of this machine again (takes 1 s)"
    )
    plan.add_argument("--settings", choices=FORMATS, help="print the plan as configuration of this program")
    plan.add_argument("--simulate", action="store_true", help="simulate every client, up to a billion")
    plan.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the simulation and the lab's measurements")
    plan.add_argument("--verify", action="store_true", help="check each model with a quick experiment in the lab")


def _audit(add: Add) -> None:
    audit = add(
        "audit",
        "run an HTTPS client against servers that are wrong in one known way each",
        "audit --client curl",
        "audit --client all --limit 5",
        "audit --only expired wrong-host -- ./my-client --ca {ca} {url}",
        "audit --baseline before.json --junit audit.xml -- curl -sS {url}",
        as_json="by client, one object per trap",
    )
    audit.add_argument(
        "words", nargs="*", metavar="COMMAND", help="after --; {url} and {ca} (root certificate) are replaced"
    )
    audit.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="a well-known client, or all; repeatable"
    )
    audit.add_argument("--only", nargs="+", default=[], metavar="TRAP", help="these traps, and one control")
    audit.add_argument(
        "--limit", type=arguments.limit, default=15.0, metavar="S", help="a client that takes longer hangs (15)"
    )
    audit.add_argument("--jobs", type=arguments.clients, default=4, metavar="N", help="clients at once (4)")
    audit.add_argument(
        "--baseline", type=Path, metavar="FILE", help="--json of an earlier audit: only reactions that got worse fail"
    )
    audit.add_argument("--junit", type=Path, metavar="FILE", help="write the findings to FILE as JUnit XML, for CI")
    audit.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the findings to FILE as a table in Markdown"
    )
    add("traps", "list the servers that `audit` uses", "traps", "traps --json", as_json="one object per trap")


def _results(add: Add) -> None:
    report = add(
        "report",
        "list runs, compare two, or verify the evidence of a drill",
        "report",
        "report --evidence revoke-client",
        "report --compare handshake handshake~1",
        "report --compare handshake/20261124T220000Z results/handshake/20261124T230000Z --json",
        as_json="as JSON",
    )
    report.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="NAME (its latest run), NAME~1 (the one before), NAME/TIME, or a folder",
    )
    report.add_argument(
        "--evidence",
        metavar="RUN",
        help="verify the signed manifest of a drill's run, and list its checks with the requirements that they concern",
    )


def _own(add: Add) -> None:
    new = add(
        "new",
        "write a scenario or a drill of your own, as a file that runs at once",
        "new scenario my-scenario",
        "new drill my-drill",
    )
    new.add_argument("kind", choices=["scenario", "drill"])
    new.add_argument(
        "name", type=arguments.experiment_name, help="lower-case words with hyphens; the file is NAME.py in this folder"
    )
    completion = add(
        "completion",
        "print a script that completes commands, hosts, links, scenarios and drills in your shell",
        "completion bash > ~/.local/share/bash-completion/completions/firstbyte",
        "completion zsh > ~/.zfunc/_firstbyte",
        "completion fish > ~/.config/fish/completions/firstbyte.fish",
    )
    completion.add_argument("shell", choices=SHELLS)
