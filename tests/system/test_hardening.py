"""What the threat model promises of every host, read from the kernel rather than from the compose file."""

import pytest

from tests.system.conftest import Shell

pytestmark = pytest.mark.system


def test_every_process_runs_unprivileged(shell: Shell) -> None:
    wrong = {}
    for host in shell.lab.topology.always:
        script = "for p in /proc/[0-9]*; do grep -hE '^(Uid|CapEff|CapBnd|NoNewPrivs):' $p/status 2>/dev/null; done"
        facts = {" ".join(line.split()) for line in shell.on(host.name, "sh", "-c", script).lines}
        none = "0" * 16
        expected = {"Uid: 1000 1000 1000 1000", f"CapEff: {none}", f"CapBnd: {none}", "NoNewPrivs: 1"}
        # `docker exec` gives our own look at it the container's bounding set; PID 1 and below have none.
        facts = {fact for fact in facts if not (fact.startswith("CapBnd:") and not fact.endswith(none))}
        if facts != expected:
            wrong[host.name] = facts ^ expected
    assert wrong == {}


def test_pid_1_has_no_capability_to_fall_back_on(shell: Shell) -> None:
    for host in shell.lab.topology.always:
        (line,) = shell.on(host.name, "grep", "CapBnd", "/proc/1/status").lines
        assert line.split()[1] == "0" * 16, host.name


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
    assert shell.on("lab", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://198.19.20.10:9900/health").out == "200"  # fmt: skip


def test_every_fault_is_off(shell: Shell) -> None:
    on = {}
    for host in shell.lab.topology.always:
        faults = shell.lab.call(host.name, "GET", "/admin/faults")
        if active := [name for name, fault in faults.items() if fault["on"]]:
            on[host.name] = active
    assert on == {}
