"""Tests with a real lab in network namespaces: properties of its hosts, and resources left after shutdown."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from netns_engine import compose
from netns_engine.cgroups import Limits
from netns_engine.state import Process, StateFolder
from runtime import EngineError, LabDownError, UnknownHostError
from runtime.netns_lab import DOWN_TIMEOUT, NetnsLab
from tests import judges
from tests.waiting import comes_true

pytestmark = pytest.mark.system

#: Time-out for a process to start or end on a busy machine, in seconds.
SLOW = 30.0
#: dig command that queries the lab's root zone for the delegation of com.
QUESTION = ("dig", "+norecurse", "+time=10", "+tries=1", "com.", "NS")


def state(lab: NetnsLab, host: str) -> str:
    return next(s.state for s in lab.status() if s.name == host)


def health(lab: NetnsLab, host: str) -> str:
    return next(s.health for s in lab.status() if s.name == host)


def started(lab: NetnsLab, host: str) -> bytes | None:
    """Return the start time of a host's first process in clock ticks since boot; None if the host has no process."""
    try:
        code, out, _ = lab.capture(host, ["cat", "/proc/1/stat"])
    except LabDownError:
        return None
    return None if code else out.split()[21]


def processes(lab: NetnsLab) -> list[Process]:
    """Return all processes of a running lab: its supervisor and all descendants."""
    supervisor = lab._state.running()
    assert supervisor is not None
    parents = {
        int(p.parent.name): int(text.rpartition(b")")[2].split()[1])
        for p in Path("/proc").glob("[0-9]*/stat")
        if (text := _read(p))
    }
    found = {supervisor.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [Process.of(pid) for pid in found]


def gone(those: list[Process]) -> bool:
    return not any(each.alive for each in those)


def left_behind(lab: NetnsLab) -> list[str]:
    """Return the remaining processes, mounts and cgroups of a lab that has ended; the list should be empty."""
    folder = str(lab._state.path)
    processes = [
        p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists() and folder.encode() in _read(p)
    ]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if folder in line]
    return [*processes, *mounts, *map(str, _cgroups(lab))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _cgroups(lab: NetnsLab) -> list[Path]:
    """Return the lab's cgroups; `os.walk` ignores other programs' cgroups that disappear in the meantime."""
    name = Limits(lab._state.path, ())._name
    return [Path(at, name) for at, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]


# --- properties of hosts ----------------------------------------------------------------------------------------------


def test_every_host_is_healthy_and_the_one_shot_is_done(small: NetnsLab) -> None:
    small.require_up()
    found = {s.name: (s.state, s.health) for s in small.status()}
    assert found == {
        "ceremony": ("exited", ""),
        "wan": ("running", "healthy"),
        "client": ("running", "healthy"),
        "root-a": ("running", "healthy"),
    }


def test_memory_is_counted_for_each_host(small: NetnsLab) -> None:
    memory = {s.name: s.memory for s in small.status(memory=True)}
    assert memory["ceremony"] is None
    assert 2**20 < (memory["wan"] or 0) < 2**28


def test_a_round_trip_takes_what_the_link_says(small: NetnsLab) -> None:
    times = list[float]()

    def quick() -> bool:
        with small.socket("client") as sock:
            began = time.perf_counter()
            sock.connect(("198.19.10.53", 53))
            times.append((time.perf_counter() - began) * 1000)
        return len(times) >= 5 and min(times) < 16.0

    # The round-trip time between access and root-a is 14 ms, and other load on the machine can only increase it.
    assert comes_true(quick, SLOW), times
    assert min(times) >= 14.0, times


def test_services_have_no_capability_and_may_gain_none(small: NetnsLab) -> None:
    code, out, _ = small.capture("root-a", ["cat", "/proc/1/status", "/proc/self/status"])
    assert code == 0
    fields = [line.split() for line in out.decode().splitlines()]
    for name in ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"):
        assert [value for field, *value in fields if field == name] == [["0" * 16]] * 2, name
    assert [value for field, *value in fields if field == "NoNewPrivs:"] == [["1"]] * 2


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc/resolv.conf",
        "/srv/etc/links.toml",
        "/srv/token/admin.token",
        "/proc/sys/kernel/hostname",
        "/opt/venv",
    ],
)
def test_nothing_that_is_read_only_in_docker_can_be_written(small: NetnsLab, path: str) -> None:
    command = f"touch {path}/x" if path in {"/", "/opt/venv"} else f"echo x >> {path}"
    code, _, err = small.capture("root-a", ["sh", "-c", command])
    assert code != 0
    assert b"ead-only" in err, err


def test_a_host_sees_its_own_devices_processes_and_name(small: NetnsLab) -> None:
    def said(*command: str) -> list[str]:
        return small.capture("wan", command)[1].decode().split()

    assert set(said("ls", "/dev")) == {
        "fd", "full", "net", "null", "random", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    }  # fmt: skip
    assert said("hostname") == ["wan"]
    assert "1" in said("ls", "/proc")
    assert said("cat", "/proc/1/comm")[0] in {"tini", "python", "python3"}


def test_a_host_is_limited_where_this_machine_allows_it(small: NetnsLab) -> None:
    files = (p for group in _cgroups(small) for p in (group / "wan").glob("memory.*"))
    groups = [p for p in files if "limit" in p.name or p.name.endswith(".max")]
    if not groups:
        pytest.skip("no cgroup with a memory controller that we may use")
    assert str(128 * 2**20) in {_read(p).decode().strip() for p in groups}


# --- programs ---------------------------------------------------------------------------------------------------------


def test_any_program_of_the_machine_runs_with_a_hosts_network(
    small: NetnsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = "pwd; cat /etc/resolv.conf; ip -4 -br address show eth0; id -u"
    assert small.exec("client", ["sh", "-c", f"({script}) > said"]) == 0
    said = (tmp_path / "said").read_text()
    assert said.splitlines()[0] == str(tmp_path)
    assert "nameserver 198.19.2.53" in said
    assert "198.19.1.10/16" in said
    assert said.splitlines()[-1] == str(os.getuid())
    judges.require("dig")
    assert small.exec("client", ["sh", "-c", f"{' '.join(QUESTION)} @198.19.10.53 > answer"]) == 0
    assert "a.gtld-servers.test." in (tmp_path / "answer").read_text()


def test_exit_codes_are_the_programs_own(small: NetnsLab) -> None:
    assert small.exec("client", ["sh", "-c", "exit 7"]) == 7
    assert small.exec("client", ["sh", "-c", "kill -9 $$"]) == 137
    assert small.capture("client", ["sh", "-c", "echo out; echo err >&2; exit 9"]) == (9, b"out\n", b"err\n")


def test_a_large_output_is_captured_whole(small: NetnsLab) -> None:
    code, out, err = small.capture("client", ["sh", "-c", "head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2"])
    assert (code, len(out), len(err)) == (0, 3_000_000, 300_000)


def test_the_admin_port_answers_with_the_token_of_the_lab(small: NetnsLab) -> None:
    links = small.call("wan", "GET", "/admin/links")["links"]
    assert {"from": "access", "to": "root-a"}.items() <= next(
        x for x in links if (x["from"], x["to"]) == ("access", "root-a")
    ).items()
    assert "firstbyte_" in small.call("root-a", "GET", "/metrics")


def test_unknown_hosts_and_hosts_that_are_down_are_distinguished(small: NetnsLab) -> None:
    with pytest.raises(UnknownHostError, match="unknown host 'nobody'"):
        small.call("nobody", "GET", "/health")
    with pytest.raises(LabDownError, match="ceremony is exited"):
        small.call("ceremony", "GET", "/health")


def test_published_ports_lead_to_the_host_over_udp_and_tcp(small: NetnsLab) -> None:
    port = next(p.published for p in _ports(small))
    for flags in ((), ("+tcp",)):
        done = subprocess.run(
            [*judges.command(*QUESTION), *flags, "@127.0.0.1", "-p", str(port)],
            check=False,
            capture_output=True,
            text=True,
        )
        assert "a.gtld-servers.test." in done.stdout, done.stdout


def _ports(lab: NetnsLab) -> tuple[compose.Port, ...]:

    return compose.load(lab.topology.project / "docker-compose.yml").service("root-a").ports


# --- host faults ------------------------------------------------------------------------------------------------------


def test_a_killed_host_stays_down_until_it_is_started(small: NetnsLab) -> None:
    small.kill("root-a")
    assert state(small, "root-a") == "exited"
    with small.socket("client") as sock:
        sock.settimeout(5)
        with pytest.raises(OSError):
            sock.connect(("198.19.10.53", 53))
    small.start("root-a")
    assert comes_true(lambda: health(small, "root-a") == "healthy", SLOW)
    with small.socket("client") as sock:
        sock.settimeout(10)
        sock.connect(("198.19.10.53", 53))


def test_a_process_that_dies_is_started_again(small: NetnsLab) -> None:
    judges.require("tini")  # without an init, the service is PID 1, which processes of its own namespace cannot kill
    before = started(small, "root-a")
    # `kill -9 -1` kills every process except PID 1, which exits when its child ends.
    small.capture("root-a", ["sh", "-c", "kill -9 -1"])
    assert comes_true(lambda: started(small, "root-a") not in {before, None}, SLOW)
    assert comes_true(lambda: health(small, "root-a") == "healthy", SLOW)


def test_a_paused_host_accepts_connections_and_does_not_answer(small: NetnsLab) -> None:
    small.pause("root-a")
    try:
        assert state(small, "root-a") == "paused"
        with small.socket("client") as sock:
            sock.settimeout(10)
            sock.connect(("198.19.10.53", 53))  # the kernel completes the TCP handshake of a paused host
            sock.sendall(b"\0\x11" + bytes(17))
            sock.settimeout(1)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        with pytest.raises(LabDownError, match="root-a is paused"):
            small.exec("root-a", ["true"])
    finally:
        small.unpause("root-a")
    assert small.capture("root-a", ["true"])[0] == 0


def test_stopping_lets_a_host_drain(small: NetnsLab, capsys: pytest.CaptureFixture[str]) -> None:
    small.stop("client")
    small.start("client")
    assert comes_true(lambda: health(small, "client") == "healthy", SLOW)
    small.logs(["client"], tail="50")
    assert '"event": "stopping"' in capsys.readouterr().out


# --- start, shutdown and leftovers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(3))
def test_up_and_down_leave_nothing(absent: NetnsLab, round_: int) -> None:
    absent.up()
    those = processes(absent)
    assert len(those) >= 5  # supervisor, port forwarder and three hosts
    began = time.monotonic()
    absent.down()
    assert time.monotonic() - began < DOWN_TIMEOUT  # the supervisor exited by itself before the time-out for killing it
    assert gone(those)
    assert left_behind(absent) == []
    assert not absent._state.path.exists()


def test_killing_the_supervisor_ends_everything_and_the_next_up_works(absent: NetnsLab) -> None:
    absent.up(publish=False)
    those = processes(absent)
    process = absent._state.running()
    assert process is not None
    done: list[int] = []
    ours = f"300.{os.getpid()}"
    forgotten = threading.Thread(target=lambda: done.append(absent.exec("client", ["sleep", ours])))
    forgotten.start()
    cmdline = f"sleep\0{ours}\0".encode()
    assert comes_true(lambda: any(_read(p) == cmdline for p in Path("/proc").glob("[0-9]*/cmdline")), SLOW)
    os.kill(process.pid, signal.SIGKILL)
    forgotten.join(SLOW)
    assert done == [137]  # 128 + SIGKILL: the program on the host has ended too
    assert comes_true(lambda: gone(those), SLOW)
    assert {s.state for s in absent.status()} == {"absent"}
    absent.up(publish=False)
    absent.require_up()


def test_two_labs_with_the_same_addresses_run_side_by_side(small: NetnsLab, absent: NetnsLab) -> None:
    absent.up()
    for lab in (small, absent):
        assert lab.call("root-a", "GET", "/health")["status"] == "ok"
    absent.kill("root-a")
    assert state(small, "root-a") == "running"


def test_ctrl_c_while_it_starts_leaves_nothing(absent: NetnsLab) -> None:
    # A key ceremony that takes ten minutes keeps the lab in its start-up phase for the duration of this test.
    compose = Path(absent.topology.project, "docker-compose.yml")
    compose.write_text(compose.read_text().replace('"echo secret', '"sleep 600; echo secret'))
    environment = {
        **os.environ,
        "FIRSTBYTE_STATE": str(absent._state.path),
        "FIRSTBYTE_PROJECT": str(absent.topology.project),
    }
    # A background job of a shell inherits an ignored SIGINT, and so do its child processes; `env` restores the default.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "firstbyte", "up", "--runtime", "netns"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert comes_true(lambda: absent._state.supervisor() is not None, SLOW)
        those = processes(absent)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SLOW)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert comes_true(lambda: gone(those), SLOW)
    assert left_behind(absent) == []


# --- invalid input ----------------------------------------------------------------------------------------------------


def test_a_published_port_in_use_is_reported_before_anything_starts(absent: NetnsLab) -> None:
    port = next(p.published for p in _ports(absent) if p.protocol == "tcp")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EngineError, match=rf"cannot publish 127.0.0.1:{port}/tcp: Address already in use"),
    ):
        absent.up()
    assert not absent.is_up


def test_a_refused_sysctl_is_reported_by_name(absent: NetnsLab) -> None:
    path = absent.topology.project / "docker-compose.yml"
    path.write_text(path.read_text().replace("net.ipv4.ip_forward", "net.ipv4.ip_forwarding"))
    with pytest.raises(EngineError, match=r"wan cannot start here: sysctl net.ipv4.ip_forwarding=1: No such file"):
        absent.up(publish=False)
    assert not absent.is_up


def test_a_host_that_never_becomes_healthy_is_reported_with_its_last_log_lines(absent: NetnsLab) -> None:
    path = absent.topology.project / "docker-compose.yml"
    path.write_text(path.read_text().replace(".=/srv/zones/root.zone", ".=/srv/zones/nothing.zone"))
    with pytest.raises(EngineError, match=r"(?s)did not come up: root-a ended with exit code 2.*nothing.zone"):
        absent.up(publish=False)
    assert not absent.is_up


def test_a_second_up_of_the_command_line_is_refused(small: NetnsLab) -> None:
    environment = {
        **os.environ,
        "FIRSTBYTE_STATE": str(small._state.path),
        "FIRSTBYTE_PROJECT": str(small.topology.project),
    }
    done = subprocess.run(
        [sys.executable, "-m", "firstbyte", "up"], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "the lab is already up (netns)" in done.stderr


def test_state_folders_of_others_are_not_ours_to_read(small: NetnsLab) -> None:
    assert StateFolder(small._state.path).path.stat().st_mode & 0o077 == 0


def test_the_doctor_measures_the_links_of_a_lab_that_is_up(small: NetnsLab) -> None:
    environment = {
        **os.environ,
        "FIRSTBYTE_STATE": str(small._state.path),
        "FIRSTBYTE_PROJECT": str(small.topology.project),
    }
    command = [sys.executable, "-m", "firstbyte", "doctor", "--runtime", "netns", "--json"]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode in {0, 1}, done.stderr  # exit code 1: other programs keep this machine busy
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert findings["runtime netns"]["grade"] == "ok"
    assert findings["lab"]["found"] == "up (netns), 3 hosts"
    assert "configured 14 ms" in findings["link to root-a"]["found"]
    assert all(bool(each["disables"]) == (each["grade"] != "ok") for each in findings.values())
