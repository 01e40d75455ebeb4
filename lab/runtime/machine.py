"""Checks for `firstbyte doctor`: whether this machine can run a lab and measure in it.  Changes nothing.

The functions that grade a property receive its value as an argument; functions that read or measure values are at the
end.
"""

import ipaddress
import os
import platform
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netns_engine import compose
from netns_engine.cgroups import controllers
from netns_engine.compose import COMPOSE_FILE
from netns_engine.host import HOST_UID, user_of_services
from netns_engine.prerequisites import require_machine
from runtime.docker_lab import DockerLab
from runtime.errors import LabError
from runtime.topology import Topology

#: Maximum share of all cores that other programs may use, and maximum lateness of a timer in seconds (median, 99th
#: percentile).
MAX_BUSY, MAX_LATE_MEDIAN, MAX_LATE_P99 = 0.5, 0.0005, 0.002
#: Duration of the measurement of other programs' load in seconds, and number of timed sleeps.
WATCH, SLEEPS = 0.5, 300
#: Sysctls of the machine that new network namespaces inherit: accepted values, and the features that depend on them.
EXPECTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "net.ipv4.tcp_tw_reuse": (("0", "2"), "TIME_WAIT keeps a port for a minute: scenario time-wait"),
    "net.ipv4.tcp_slow_start_after_idle": (("1",), "a pooled connection starts slowly again after idling: pooling"),
    "net.ipv4.tcp_timestamps": (("1",), "reuse of ports by timestamps: time-wait"),
    "net.ipv4.tcp_window_scaling": (("1",), "windows beyond 64 kB: transfers on the far links"),
    "net.ipv4.tcp_sack": (("1",), "recovery from loss within a round trip: scenarios with loss"),
}
CONTROLS = ("reno", "cubic", "bbr")


class Grade(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    #: A feature is unavailable; tests and experiments that need it are skipped with a message.
    LIMITED = "limited"
    #: The lab cannot run on this machine, or its measurements would be invalid.
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked property of this machine."""

    name: str
    grade: Grade
    #: Observed value.
    found: str
    #: Consequence of the problem; "" if there is no problem.
    disables: str = ""
    #: Remedy for the problem; "" if there is no problem.
    mend: str = ""


def examine(topology: Topology) -> Iterable[Finding]:
    """Yield all findings that do not need a running lab."""
    engine, networks = docker_problem(topology), netns_problem(topology)
    yield docker(engine, alone=bool(networks))
    yield netns(networks, alone=bool(engine))
    yield services_user(user_of_services(topology.project), sys.base_prefix)
    yield limits([each.name for each in controllers()])
    yield congestion_control(
        _read("net.ipv4.tcp_available_congestion_control").split(), _read("net.ipv4.tcp_congestion_control")
    )
    yield settings({key: _read(key) for key in EXPECTED}, "this machine")
    yield openssl(ssl.OPENSSL_VERSION, ssl.OPENSSL_VERSION_INFO[:2])
    yield python(sys.version_info[:2])
    yield cores(os.cpu_count() or 1, busy_cores(WATCH))
    yield timer(timer_lateness(SLEEPS))
    yield clock(_text("/sys/devices/system/clocksource/clocksource0/current_clocksource"))


# --- grading ----------------------------------------------------------------------------------------------------------


def docker(problem: str, *, alone: bool) -> Finding:
    """Grade the Docker engine; *alone* is true if no other runtime works."""
    if not problem:
        return Finding("runtime docker", Grade.OK, "an engine answers")
    return Finding(
        "runtime docker",
        Grade.UNFIT if alone else Grade.LIMITED,
        problem,
        "the runtime docker, and `docker compose up`",
        "install Docker Engine >= 26 with Compose >= 2.24"
        + ("" if alone else ", or use the runtime netns, which works"),
    )


def netns(problem: str, *, alone: bool) -> Finding:
    """Grade network namespaces; *alone* is true if no other runtime works."""
    if not problem:
        how = "as root" if os.geteuid() == 0 else "in a user namespace"
        return Finding("runtime netns", Grade.OK, f"{how}, Linux {platform.release()}")
    what, _, mend = problem.rpartition(": ")
    return Finding("runtime netns", Grade.UNFIT if alone else Grade.LIMITED, what, "the runtime netns", mend)


def services_user(uid: int, interpreter: str) -> Finding:
    """Grade the uid that services have in the runtime netns."""
    if uid == HOST_UID:
        return Finding("services' user", Grade.OK, f"uid {HOST_UID}, without any capability")
    why = f"uid {uid}, without any capability"
    if uid != 0:
        return Finding("services' user", Grade.LIMITED, why, "a separate user for services", "start the lab as root")
    return Finding(
        "services' user",
        Grade.LIMITED,
        f"{why}: other users cannot read {interpreter}",
        "a separate user for services (netns): they can read what root owns",
        "keep Python and the checkout where every user can read them, not below a closed home folder",
    )


def limits(names: list[str]) -> Finding:
    """Grade the resource limits that the runtime netns can enforce; *names* lists the available cgroup controllers."""
    missing = [name for name in ("memory", "pids") if name not in names]
    if not missing:
        return Finding("limits", Grade.OK, "memory and pids, by cgroup")
    return Finding(
        "limits",
        Grade.LIMITED,
        f"no cgroup for {' and '.join(missing)}",
        "mem_limit and pids_limit of hosts (netns)",
        "run as root on a machine whose /sys/fs/cgroup has these controllers",
    )


def congestion_control(available: list[str], default: str) -> Finding:
    """Grade the available congestion controls; hosts set reno per route, regardless of the machine's default."""
    missing = [name for name in CONTROLS if name not in available]
    found = f"{', '.join(available) or 'none'}; the machine's default is {default or '?'}, hosts use reno"
    if not missing:
        return Finding("congestion control", Grade.OK, found)
    grade = Grade.UNFIT if "reno" in missing else Grade.LIMITED
    mend = " ".join(f"modprobe tcp_{name};" for name in missing).rstrip(";")
    return Finding("congestion control", grade, found, f"measurements with {', '.join(missing)}", mend)


def settings(values: Mapping[str, str], where: str, intended: Mapping[str, str] | None = None) -> Finding:
    """Grade the sysctls of *where*; *intended* are the values that the compose file sets for this host."""
    intended = intended or {}
    odd = {
        key: value
        for key, value in values.items()
        if value and value not in EXPECTED[key][0] and value != intended.get(key)
    }
    name = f"sysctls of {where}"
    if not odd:
        ours = ", ".join(f"{key}={intended[key]}" for key in values if key in intended)
        return Finding(
            name, Grade.OK, f"{len(values)} as scenarios need them" + (f"; {ours} by the compose file" if ours else "")
        )
    return Finding(
        name,
        Grade.LIMITED,
        ", ".join(f"{key}={value}" for key, value in odd.items()),
        "; ".join(EXPECTED[key][1] for key in odd),
        "; ".join(f"sysctl -w {key}={EXPECTED[key][0][-1]}" for key in odd),
    )


def openssl(version: str, number: tuple[int, ...]) -> Finding:
    """Grade the TLS library of this Python, which all services in the runtime netns use."""
    short = " ".join(version.split()[:2])
    if number >= (3, 5):
        return Finding("OpenSSL", Grade.OK, f"{short}: X25519MLKEM768 by default")
    return Finding(
        "OpenSSL",
        Grade.LIMITED,
        f"{short}: no X25519MLKEM768",
        "post-quantum key exchange (netns; the image of the runtime docker has it)",
        "a Python that is linked to OpenSSL >= 3.5",
    )


def python(version: tuple[int, ...]) -> Finding:
    """Grade the version of the Python interpreter."""
    text = ".".join(map(str, version))
    if version >= (3, 13):
        return Finding("Python", Grade.OK, f"{text}: verifies certificates strictly")
    return Finding(
        "Python",
        Grade.LIMITED,
        f"{text}: verifies certificates less strictly than the image's 3.13",
        "the same verdict on malformed certificates as with the runtime docker",
        "set firstbyte up with Python >= 3.13: `rm -r .venv; make PYTHON=python3.13 venv`",
    )


def cores(count: int, busy: float) -> Finding:
    """Grade the number of CPU cores; *busy* is the number of cores that other programs use."""
    found = f"{count}, of which other programs use {busy:.1f}"
    if busy / count > MAX_BUSY:
        return Finding(
            "cores", Grade.UNFIT, found, "every measurement: it would include that load", "wait, or stop them"
        )
    if count < 2:
        return Finding("cores", Grade.LIMITED, found, "load at full rate: generator and services share one core", "")
    return Finding("cores", Grade.OK, found)


def timer(late: list[float]) -> Finding:
    """Grade timer accuracy; *late* has the lateness of each timed sleep in seconds."""
    ordered = sorted(late)
    median, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    found = f"late by {median * 1e3:.2f} ms in the median, {p99 * 1e3:.2f} ms at the 99th percentile"
    if median <= MAX_LATE_MEDIAN and p99 <= MAX_LATE_P99:
        return Finding("timer", Grade.OK, found)
    return Finding(
        "timer",
        Grade.UNFIT if median > MAX_LATE_MEDIAN else Grade.LIMITED,
        found,
        f"figures below {max(1.0, p99 * 1e3):.0f} ms: links delay packets by this timer",
        "less load on this machine; no power saving; a virtual machine with dedicated cores",
    )


def clock(source: str) -> Finding:
    """Grade the kernel's clock source."""
    if source in {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", ""}:
        return Finding("clock", Grade.OK, source or "unknown")
    return Finding(
        "clock", Grade.LIMITED, source, "cheap timestamps: each takes a microsecond", "boot with clocksource=tsc"
    )


def port(address: str, number: int, protocol: str, problem: str) -> Finding:
    """Grade a port that the lab publishes; *problem* is the reason why it cannot be bound, or ""."""
    name = f"port {number}/{protocol}"
    if not problem:
        return Finding(name, Grade.OK, f"free on {address}")
    return Finding(
        name,
        Grade.LIMITED,
        problem,
        f"the service published there on {address}",
        "stop what listens there, choose another port (.env.example), or `firstbyte up --no-ports`",
    )


def address_range(subnet: ipaddress.IPv4Network, routes: Iterable[tuple[str, ipaddress.IPv4Network]]) -> Finding:
    """Check whether the machine already uses addresses in the lab's range: a problem for Docker, but not for netns."""
    taken = [f"{network} on {device}" for device, network in routes if network.prefixlen and network.overlaps(subnet)]
    if not taken:
        return Finding("address range", Grade.OK, f"{subnet} is free here")
    return Finding(
        "address range",
        Grade.LIMITED,
        ", ".join(taken),
        "the runtime docker",
        "remove the route, set FIRSTBYTE_PREFIX (.env.example), or `--runtime netns`",
    )


# --- reading and measuring --------------------------------------------------------------------------------------------


def docker_problem(topology: Topology) -> str:
    """Return why Docker cannot be used, or ""."""
    try:
        DockerLab(topology).close()
    except LabError as error:
        return str(error)
    return ""


def docker_lab_is_up(topology: Topology) -> bool:
    """Return whether this project's lab runs on a Docker engine."""
    try:
        with DockerLab(topology) as lab:
            return any(host.state == "running" for host in lab.status())
    except LabError:
        return False


def netns_problem(topology: Topology) -> str:
    """Return why network namespaces cannot be used, or ""."""
    try:
        require_machine(compose.load(topology.project / COMPOSE_FILE))
    except LabError as error:
        return str(error)
    return ""


def port_problem(address: str, number: int, protocol: str) -> str:
    """Return why a port cannot be bound, or ""."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, number))
        except OSError as error:
            return str(error.strerror)
    return ""


def routes(text: str) -> list[tuple[str, ipaddress.IPv4Network]]:
    """Parse *text*, the contents of /proc/net/route; return (device, destination) of each route.

    Addresses in this file are hexadecimal in the machine's byte order.
    """
    found = []
    for line in text.splitlines()[1:]:
        device, destination, *_, mask = line.split()[:8]
        network, bits = (int.from_bytes(bytes.fromhex(each), sys.byteorder) for each in (destination, mask))
        found.append((device, ipaddress.IPv4Network((network, bits.bit_count()))))
    return found


def busy_cores(seconds: float) -> float:
    """Return the average number of busy cores while this process sleeps for *seconds*."""

    def read() -> tuple[int, int]:
        fields = [int(each) for each in _text("/proc/stat").splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # total time; idle and iowait time

    before = read()
    time.sleep(seconds)  # the measurement period, during which this process uses no CPU
    after = read()
    passed = after[0] - before[0]
    return (os.cpu_count() or 1) * (1 - (after[1] - before[1]) / passed) if passed else 0.0


def timer_lateness(sleeps: int) -> list[float]:
    """Sleep *sleeps* times for 1 ms; return the lateness of each sleep in seconds."""
    late = []
    for _ in range(sleeps):
        began = time.perf_counter()
        select.select((), (), (), 0.001)
        late.append(time.perf_counter() - began - 0.001)
    return late


def _read(key: str) -> str:
    return _text("/proc/sys/" + key.replace(".", "/"))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
