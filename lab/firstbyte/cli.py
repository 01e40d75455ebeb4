"""The command line: one parser, one table of commands, one place where errors become exit codes.

Exit codes: 0 ok · 1 a check or verdict failed · 2 usage · 3 no runtime or lab not up · 4 the measurement is invalid.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from firstbyte import doctor, experiment, lifecycle, link, pki, reports, trace
from runtime import RUNTIMES, LabError
from runtime.choose import VARIABLE

Command = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Raises:
        KeyboardInterrupt: Ctrl-C, and nothing to take back or to keep.
    """
    args = _parser().parse_args(argv)
    run: Command = args.run
    if args.runtime:
        os.environ[VARIABLE] = args.runtime  # what we start inside the lab goes the same way
    try:
        return run(args)
    except LabError as error:
        print(f"firstbyte {args.command}: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `firstbyte … | head`
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="firstbyte",
        description="Everything that happens before the first byte: a miniature internet, measured.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  firstbyte up\n  firstbyte trace https://www.example.com/",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command, help_: str, *examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help_,
            description=help_ + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="examples:\n" + "\n".join(f"  firstbyte {each}" for each in examples),
        )
        command.set_defaults(run=run)
        command.add_argument(
            "--runtime", choices=RUNTIMES, help="instead of Docker where an engine answers, and else netns"
        )
        return command

    up = add("up", lifecycle.up, "start the lab and wait until it is healthy", "up", "up --runtime netns --no-ports")
    up.add_argument("--load", action="store_true", help="Locust, too")
    up.add_argument("--no-ports", action="store_true", help="publish nothing on 127.0.0.1 (netns only)")
    up.add_argument("--no-build", action="store_true", help="take the image as it is")

    down = add("down", lifecycle.down, "remove everything that up made", "down", "down --keep-ca")
    down.add_argument("--keep-ca", action="store_true", help="keep the volumes: the CA, certificates, results")

    status = add(
        "status", lifecycle.status, "each host's state, health, address and faults", "status", "status --memory --json"
    )
    status.add_argument("--memory", action="store_true", help="resident memory of each host")
    status.add_argument("--json", action="store_true")

    logs = add("logs", lifecycle.logs, "logs of hosts", "logs edge --tail 20", "logs --follow ca edge")
    logs.add_argument("host", nargs="*")
    logs.add_argument("--follow", "-f", action="store_true")
    logs.add_argument("--tail", type=lifecycle.tail, default="all", metavar="N", help="the last lines of each (all)")

    execute = add(
        "exec",
        lifecycle.exec_,
        "run a command on a host",
        "exec client -- cat /proc/net/sockstat",
        "exec edge -- python -m telemetry.call GET /admin/pool",
    )
    execute.add_argument("host")
    execute.add_argument("cmd", nargs=argparse.REMAINDER, metavar="-- CMD")

    for verb, help_ in (
        ("stop", "stop hosts (SIGTERM)"),
        ("start", "start hosts that were stopped or killed"),
        ("kill", "kill hosts (SIGKILL), as a power cut would"),
        ("pause", "freeze hosts: reachable, and silent"),
        ("unpause", "let paused hosts go on"),
    ):
        host = add(verb, lifecycle.host_verb, help_, f"{verb} catalog-1", f"{verb} ns1 ns2")
        host.add_argument("host", nargs="+")

    again = add(
        "restart",
        lifecycle.restart,
        "stop and start hosts, and wait until they are well: shows a change of code (netns)",
        "restart edge",
        "restart catalog-1 catalog-2",
    )
    again.add_argument("host", nargs="+")

    fit = add(
        "doctor",
        doctor.doctor,
        "is this machine fit to run a lab and to measure in it",
        "doctor",
        "doctor --json",
    )
    fit.add_argument("--json", action="store_true")

    links = add(
        "link",
        link.link,
        "show links between regions, or change one",
        "link",
        "link access:near --rtt 80ms --loss 1%",
        "link access:near --duplicate 1% --reorder 1% --corrupt swap16:5%",
        "link access:near --reset",
    )
    links.add_argument("between", nargs="?", type=link.pair, metavar="REGION:REGION")
    links.add_argument("--rtt", type=link.milliseconds, metavar="MS", help="round-trip time")
    links.add_argument("--jitter", type=link.milliseconds, metavar="MS")
    links.add_argument("--loss", type=link.probability, metavar="P", help="0.01 or 1%%")
    links.add_argument("--rate", type=link.bit_rate, metavar="BITS", help="per second: 10M, 512k; 0 is unlimited")
    links.add_argument("--duplicate", type=link.probability, metavar="P", help="packets that arrive twice")
    links.add_argument(
        "--reorder", type=link.probability, metavar="P", help="packets held back, so that others overtake"
    )
    links.add_argument("--reorder-by", type=link.milliseconds, metavar="MS", help="how long they are (10)")
    links.add_argument(
        "--corrupt",
        type=link.corruption,
        action="append",
        metavar="MODE:P",
        help="damaged payloads: bitflip (a checksum sees it), swap16 and plusminus (none can), random; "
        "plusminus:P:K adds K to one word and subtracts it from another",
    )
    links.add_argument("--one-way", action="store_true", help="only from the first region to the second")
    links.add_argument("--reset", action="store_true", help="as in links.toml again")
    links.add_argument("--json", action="store_true")

    traced = add(
        "trace",
        trace.trace,
        "one request, phase by phase, beside its prediction",
        "trace https://www.example.com/",
        "trace https://far.example.com/bytes/50000 --tls 1.2 --json",
        "trace https://www.example.com/ --packets --pcap www.pcap --keylog www.keys",
    )
    traced.add_argument("url")
    traced.add_argument("--tls", choices=["1.2", "1.3"], help="hold TLS to one version")
    traced.add_argument("--cold", action="store_true", help="do not repeat it with warm caches")
    traced.add_argument("--no-resume", action="store_true", help="full TLS handshakes only, also when warm")
    traced.add_argument("--packets", action="store_true", help="every segment with its Ethernet, IP and TCP headers")
    traced.add_argument("--pcap", type=Path, metavar="FILE", help="write what passed at the client's side")
    traced.add_argument("--keylog", type=Path, metavar="FILE", help="write the TLS secrets, for Wireshark and tshark")
    traced.add_argument("--json", action="store_true")

    for verb, run, help_, examples in (
        ("run", experiment.run, "measure what a mechanism costs, beside what theory says", ("run handshake --quick", "run time-wait --set rate=128", "run handshake --quick --times 5", "run all --quick", "run --list")),
        ("drill", experiment.drill, "rehearse a certificate renewal going wrong", ("drill renewal-under-load --quick", "drill renewal-under-load --quick --control", "drill renewal-under-load --times 3", "drill --list")),
    ):  # fmt: skip
        command = add(verb, run, help_, *examples)
        command.add_argument("name", nargs="?", help="or: all")
        command.add_argument("--list", action="store_true", help="name them, what each shows, and its parameters")
        command.add_argument("--undo", action="store_true", help="take back what a run that was killed left in the lab")
        command.add_argument("--quick", action="store_true", help="smaller windows and rates: at most 40 s each")
        command.add_argument(
            "--control", action="store_true", help="with the safety off, or the wrong model: must fail"
        )
        command.add_argument("--seed", type=int, default=1, metavar="N", help="of injections and orders (1)")
        command.add_argument("--times", type=int, default=1, metavar="N", help="in a row with the same seed; then what they say together")  # fmt: skip
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, see --list")
        command.add_argument("--json", action="store_true", help="the result as JSON on standard output")

    kept = add(
        "report",
        reports.report,
        "list runs, or compare two",
        "report",
        "report --compare handshake handshake~1",
        "report --compare handshake/20261124T220000Z results/handshake/20261124T230000Z --json",
    )
    kept.add_argument("--compare", nargs=2, metavar=("A", "B"), help="NAME (its latest), NAME~1, NAME/TIME or a folder")
    kept.add_argument("--json", action="store_true")

    trust = add("pki", pki.root, "the trust anchor and the certificates", "pki root > root.pem", "pki list --json")
    kinds = trust.add_subparsers(dest="kind", required=True, metavar="root|list")
    kinds.add_parser("root", help="the trust bundle as PEM on standard output").set_defaults(run=pki.root)
    listed = kinds.add_parser("list", help="certificates that are valid now")
    listed.add_argument("--json", action="store_true")
    listed.set_defaults(run=pki.list_)

    add("idle", lifecycle.idle, "wait for SIGTERM (the default of the service `lab`)", "idle", "idle")
    return parser
