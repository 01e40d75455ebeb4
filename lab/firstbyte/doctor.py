"""``firstbyte doctor``: check whether this machine can run a lab and measure in it; also check a running lab's links.

Exit codes: 0 the machine is fit, possibly with limitations · 1 at least one check failed · 3 no runtime works.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from experiments import gate
from firstbyte import terminal
from hostfiles.layout import ADMIN_PORT
from netns_engine import compose
from runtime import InsideLab, Lab, LabError, NotHereError, Topology, choose, find_project, machine
from runtime.machine import EXPECTED, Finding, Grade
from waterfall.lab import Links

#: Hosts to which `client` measures round-trip times: one per region.
CALIBRATED = ("wan", "resolver", "root-a", "root-b", "tld-com", "edge", "edge-far")
#: Program that runs on `client` and prints the fastest of nine connect() calls to each address, in milliseconds.
PROBE = """
import json, socket, sys, time
found = {}
for name, address in json.loads(sys.argv[1]).items():
    for _ in range(9):
        with socket.socket() as sock:
            sock.settimeout(3)
            began = time.perf_counter()
            sock.connect((address, int(sys.argv[2])))
            found[name] = min(found.get(name, 1e9), (time.perf_counter() - began) * 1000)
print(json.dumps(found))
"""
_COLOURS = {Grade.OK: "green", Grade.LIMITED: "yellow", Grade.UNFIT: "red"}


def doctor(args: argparse.Namespace) -> int:
    """Check this machine and, if a lab is running, the round-trip times of its links; return the exit code."""
    if InsideLab.is_here():
        raise NotHereError("`firstbyte doctor` examines the machine that runs the lab: run it there")
    topology = Topology.load(find_project())
    findings = list(machine.examine(topology))
    with choose(topology) as lab:
        findings += _lab_findings(lab, topology)
    if args.json:
        print(json.dumps({"fit": not _unfit(findings), "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        _show(findings)
    if all(each.grade is Grade.UNFIT for each in findings if each.name.startswith("runtime ")):
        return 3
    return 1 if _unfit(findings) else 0


def _lab_findings(lab: Lab, topology: Topology) -> Iterator[Finding]:
    try:
        lab.require_up()
    except LabError:
        yield from _before_up(topology)
        return
    yield Finding("lab", Grade.OK, f"up ({lab.runtime}), {len(topology.always)} hosts")
    yield from _calibration(lab, topology)
    values = dict(zip(EXPECTED, _host_settings(lab), strict=True))
    intended = dict(compose.load(topology.project / compose.COMPOSE_FILE).service("client").sysctls)
    yield machine.settings(values, "the host client", intended)


def _before_up(topology: Topology) -> Iterator[Finding]:
    """Yield findings about the ports and the address range that `up` needs."""
    file = compose.load(topology.project / compose.COMPOSE_FILE)
    for service in file.services:
        for each in service.ports:
            problem = machine.port_problem(each.address, each.published, each.protocol)
            yield machine.port(each.address, each.published, each.protocol, problem)
    # If the lab already runs on Docker, its own bridge uses the address range, which is not a conflict.
    if not machine.docker_lab_is_up(topology):
        yield machine.address_range(file.subnet, machine.routes(Path("/proc/net/route").read_text(encoding="ascii")))


def _calibration(lab: Lab, topology: Topology) -> Iterator[Finding]:
    """Yield one finding per region: whether its link has the configured round-trip time."""
    links = Links.of(lab.call("wan", "GET", "/admin/links"))
    addresses = {host.name: host.address for host in topology.always if host.name in CALIBRATED and host.address}
    source = topology.host("client").address or ""
    code, out, err = lab.capture("client", ["python", "-c", PROBE, json.dumps(addresses), str(ADMIN_PORT)])
    if code:
        problem = err.decode(errors="replace").strip().rpartition("\n")[2]
        yield Finding(
            "links", Grade.UNFIT, problem, "every measurement over links", "`firstbyte status`, `firstbyte link`"
        )
        return
    measured: dict[str, float] = json.loads(out)
    for name, taken in measured.items():
        configured = links.rtt_ms(source, addresses[name])
        if configured is None:
            continue
        check = gate.calibration(name, configured, taken)
        found = f"{check.got}, configured {configured:g} ms"
        if check.ok:
            yield Finding(check.name, Grade.OK, found)
        else:
            mend = "less load on this machine; `firstbyte link --json` shows loss and rate"
            yield Finding(check.name, Grade.UNFIT, found, f"measurements over the link to {name}", mend)


def _host_settings(lab: Lab) -> list[str]:
    paths = ["/proc/sys/" + key.replace(".", "/") for key in EXPECTED]
    _, out, _ = lab.capture("client", ["cat", *paths])
    return out.decode().split()


def _unfit(findings: list[Finding]) -> bool:
    """Return whether any finding is unfit; an unusable runtime does not count if the other one works."""
    return any(each.grade is Grade.UNFIT for each in findings)


def _show(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for each in findings:
        text = escape(each.found)
        for word, more in (("disables", each.disables), ("mend", each.mend)):
            text += f"\n[dim]{word}:[/] {escape(more)}" if more else ""
        table.add_row(f"[{_COLOURS[each.grade]}]{each.grade}[/]", each.name, text)
    console = terminal.console()
    console.print(table)
    counts = {grade: sum(each.grade is grade for each in findings) for grade in Grade}
    console.print(", ".join(f"{count} {grade}" for grade, count in counts.items() if count))
