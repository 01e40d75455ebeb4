"""Commands that start, stop and inspect the lab and its hosts.

The commands are ``up``, ``down``, ``status``, ``logs``, ``exec``, and ``stop|start|restart|kill|pause|unpause``.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.markup import escape
from rich.table import Table

from firstbyte import join, terminal, where
from runtime import EngineError, HostStatus, Lab, LabDownError, LabError

#: Maximum time for a restarted host to become healthy, in seconds.
RESTART_TIMEOUT = 30.0
#: Health-check command that also prints the service's health details as JSON.
PROBE = ("python", "-m", "hostfiles.probe")


def up(args: argparse.Namespace) -> int:
    """Start the lab and wait until it is healthy; fail if the lab is already running."""
    began = time.monotonic()
    profiles = ["load"] * args.load + ["quic"] * args.quic
    with where.outside("up") as lab:
        always = {h.name for h in lab.topology.always}
        if not profiles and all(s.state == "running" for s in lab.status() if s.name in always):
            raise EngineError(
                f"the lab is already up ({lab.runtime}): `firstbyte status` shows it, `firstbyte down` ends it"
            )
        lab.up(profiles, build=not args.no_build, publish=not args.no_ports)
        console = "" if args.no_ports else f"console {lab.topology.console_url}; "
        runtime = lab.runtime
    print(f"up in {time.monotonic() - began:.1f} s ({runtime}); {console}`firstbyte trace https://www.example.com/`")
    return 0


def down(args: argparse.Namespace) -> int:
    """Remove everything that `up` created."""
    with where.outside("down") as lab:
        for subject in lab.subjects() if args.keep_ca else ():  # its address record would remain in the kept zone
            with contextlib.suppress(LabError):  # `down` removes the host; the record stays if its name server is down
                join.remove(lab, subject)
        lab.down(volumes=not args.keep_ca)
    print("down" if not args.keep_ca else "down; volumes kept")
    return 0


def status(args: argparse.Namespace) -> int:
    """Print the state, health, address, memory and active faults of each host.

    Returns:
        0 if all hosts are running and healthy.
    """
    with where.outside("status") as lab:
        hosts = lab.status(memory=args.memory)
        if all(h.state == "absent" for h in hosts):
            lab.require_up()
        health = _health(lab, hosts)
    always = {h.name for h in lab.topology.always}
    # One-shot services exit without a reason; a subject that has ended gives one.
    rows = [h for h in hosts if h.name in always or h.reason or h.state not in {"absent", "exited"}]
    good = all(h.good for h in rows)
    if args.json:
        print(json.dumps({"ok": good, "hosts": [_as_json(h, health.get(h.name)) for h in rows]}, indent=2))
        return 0 if good else 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, justify in (
        ("host", "left"),
        ("state", "left"),
        ("address", "left"),
        ("memory", "right"),
        ("says", "left"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]  # rich declares the parameter as a Literal
    for host in rows:
        word = host.health if host.state == "running" and host.health else host.state
        memory = f"{host.memory / 2**20:.0f} MiB" if host.memory is not None else ""
        table.add_row(
            host.name,
            f"[{'green' if host.good else 'red'}]{word}[/]",
            host.address or "",
            memory,
            _says(host, health.get(host.name)),
        )
    total = sum(h.memory or 0 for h in rows)
    console = terminal.console()
    console.print(table)
    if args.memory:
        console.print(f"resident in all: {total / 2**20:.0f} MiB in {len(rows)} hosts")
    return 0 if good else 1


def tail(text: str) -> str:
    """Parse ``N`` or ``all`` (an argparse type), because Compose treats any other value as ``all``."""
    if text != "all" and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a number of lines or all, got {text!r}")
    return text


def logs(args: argparse.Namespace) -> int:
    """Print the logs of the hosts in ``args`` (all hosts if none is named)."""
    with where.outside("logs") as lab:
        return lab.logs(args.host, follow=args.follow, tail=args.tail)


def exec_(args: argparse.Namespace) -> int:
    """Run a command on a host; return the command's exit code."""
    if not args.cmd:
        print("firstbyte exec: error: expected a command after the host: firstbyte exec HOST -- CMD", file=sys.stderr)
        return 2
    with where.outside("exec") as lab:
        command = args.cmd[1:] if args.cmd[0] == "--" else args.cmd
        return lab.exec(args.host, command, interactive=sys.stdin.isatty() and sys.stdout.isatty())


def host_verb(args: argparse.Namespace) -> int:
    """Stop, start, kill, pause or unpause hosts, depending on the command."""
    with where.outside(args.command) as lab:
        for name in args.host:
            lab.topology.host(name)
        for name in args.host:
            getattr(lab, args.command)(name)
            print(f"{args.command} {name}: done")
    return 0


def restart(args: argparse.Namespace) -> int:
    """Stop and start hosts, and wait until each is healthy; in the runtime netns this loads changed code."""
    with where.outside("restart") as lab:
        for name in args.host:
            lab.topology.host(name)
        for name in args.host:
            began = time.monotonic()
            lab.stop(name)
            lab.start(name)
            _wait_until_healthy(lab, name)
            print(f"restart {name}: healthy after {time.monotonic() - began:.1f} s")
    return 0


def _wait_until_healthy(lab: Lab, name: str) -> None:
    deadline = time.monotonic() + RESTART_TIMEOUT
    while True:
        found = next(s for s in lab.status() if s.name == name)
        if found.good:
            return
        if time.monotonic() > deadline or found.state in {"exited", "absent"}:
            raise LabDownError(
                f"{name} is {found.health or found.state}, expected healthy: see `firstbyte logs {name} --tail 20`"
            )
        time.sleep(0.05)  # polls: no event signals a change of a host's state


def idle(_: argparse.Namespace) -> int:
    """Wait for SIGTERM: default command of the service `lab`, which must keep running for ``up --wait`` to succeed."""
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    print("idle: `docker compose exec -u 1000 lab firstbyte trace https://www.example.com/`", flush=True)
    stop.wait()
    return 0


def _health(lab: Lab, hosts: Sequence[HostStatus]) -> dict[str, dict[str, Any]]:
    """Return the health details of every running host that has our health check, querying four hosts at a time."""

    def ask(name: str) -> tuple[str, dict[str, Any]]:
        try:
            _, out, _ = lab.capture(name, PROBE)
            return name, json.loads(out)
        except (LabError, ValueError) as error:
            return name, {"checks": {}, "error": str(error)}

    asked = [h.name for h in hosts if h.state == "running" and lab.topology.host(h.name).health_check == PROBE]
    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(ask, asked))


def _says(host: HostStatus, health: dict[str, Any] | None) -> str:
    if not health or host.state == "exited":
        return escape(host.reason)
    broken = [
        f"[red]{name}: {escape(check.get('detail', ''))}[/]"
        for name, check in health.get("checks", {}).items()
        if not check.get("ok")
    ]
    faults = [f"[yellow]fault: {name}[/]" for name in health.get("faults", {})]
    return ", ".join([*broken, *faults, *([escape(host.reason or health["error"])] if "error" in health else [])])


def _as_json(host: HostStatus, health: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": host.name,
        "state": host.state,
        "health": host.health,
        "reason": host.reason,
        "address": host.address,
        "memory_bytes": host.memory,
        "checks": (health or {}).get("checks", {}),
        "faults": (health or {}).get("faults", {}),
    }
