"""Tests that every host meets the threat model's guarantees, according to the kernel rather than the compose file."""

import pytest

from netns_engine.host import user_of_services
from tests import judges
from tests.system.conftest import Shell

pytestmark = pytest.mark.system


NONE = "0" * 16


def unprivileged(shell: Shell) -> dict[str, str]:
    """Return the expected /proc/PID/status fields of an unprivileged process.

    Without Docker, the uid may be the current user's, if no other user can read the Python interpreter.
    """
    uid = 1000 if shell.lab.runtime == "docker" else user_of_services(shell.lab.topology.project)
    return {"Uid": " ".join([str(uid)] * 4), "CapEff": NONE, "CapBnd": NONE, "NoNewPrivs": "1"}


def processes(shell: Shell, host: str) -> dict[int, dict[str, str]]:
    """Return the /proc/PID/status fields of PID 1 and its descendants, by PID.

    Health probes and this function's own shell are not descendants of PID 1, so they are not included.
    """
    script = "for p in /proc/[0-9]*; do echo; cat $p/status 2>/dev/null; done"
    every: dict[int, dict[str, str]] = {}
    for block in shell.on(host, "sh", "-c", script).out.split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        fields = {key: " ".join(value.split()) for key, _, value in lines}
        if "Pid" in fields:
            every[int(fields["Pid"])] = fields
    tree = {1}
    for pid in sorted(every):  # ascending order visits parents before children, because a parent has a lower PID
        if int(every[pid]["PPid"]) in tree:
            tree.add(pid)
    return {pid: every[pid] for pid in tree}


def test_every_process_runs_unprivileged(shell: Shell) -> None:
    if shell.lab.runtime == "netns":
        judges.require("tini")
    wrong = {}
    expected = unprivileged(shell)
    for host in shell.lab.topology.always:
        found = processes(shell, host.name)
        assert len(found) >= 2, f"expected an init and the service on {host.name}, got {sorted(found)}"
        for pid, fields in found.items():
            facts = {key: fields[key] for key in expected}
            if facts != expected:
                wrong[host.name, pid] = facts
    assert wrong == {}


def test_no_host_can_write_its_root(shell: Shell) -> None:
    writable = [h.name for h in shell.lab.topology.always if shell.on(h.name, "touch", "/srv/etc/x", "/x").code == 0]
    assert writable == []


def test_nothing_leads_out_of_the_lab(shell: Shell) -> None:
    for host in ("edge", "resolver", "console", "client"):
        routes = shell.on(host, "cat", "/proc/net/route").lines[1:]
        assert [r for r in routes if r.split()[1] == "00000000"] == [], f"{host} has a default route"


def test_the_admin_port_is_shut_without_the_token(shell: Shell) -> None:
    answer = shell.on("lab", "curl", "-sS", "-w", "%{http_code}", "http://198.19.20.10:9900/admin/faults")
    assert answer.out.endswith("401")
    assert "Bearer" in answer.out
    assert (
        shell.on("lab", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://198.19.20.10:9900/health").out
        == "200"
    )


def test_every_fault_is_off(shell: Shell) -> None:
    on = {}
    for host in shell.lab.topology.always:
        faults = shell.lab.call(host.name, "GET", "/admin/faults")
        if active := [name for name, fault in faults.items() if fault["on"]]:
            on[host.name] = active
    assert on == {}
