"""Network namespaces for the `wan` benchmarks: the hosts ``a`` and ``b``, and the router ``w`` between them.

Routes and sysctls match those in the lab's entry script. Requires root. All namespace names contain the ID of this
process. `Network.close` removes the namespaces whenever the benchmark ends, including after Ctrl-C.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
TUN = "wan0"
#: IPv4 address of each host; the two hosts are in different regions.
ADDRESS = {"a": "198.19.1.10", "b": "198.19.20.10"}
GATEWAY = {"a": "198.19.1.254", "b": "198.19.20.254"}


class BenchError(Exception):
    """The benchmark cannot run on this machine; the message describes what is missing."""


class Network:
    """Context manager for the namespaces and the processes in them."""

    def __init__(self) -> None:
        self._prefix = f"fbwan{os.getpid()}"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise BenchError("expected root, for network namespaces")
        if not Path("/dev/net/tun").exists():
            raise BenchError("expected /dev/net/tun, got none")
        # Handle SIGTERM like Ctrl-C, so that it triggers the cleanup.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._build()
        except BaseException:  # including KeyboardInterrupt: remove what was created so far
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def name(self, namespace: str) -> str:
        """Return the system-wide name of the namespace ``a``, ``b`` or ``w``."""
        return f"{self._prefix}{namespace}"

    def _build(self) -> None:
        for namespace in ("w", *ADDRESS):
            _ip("netns", "add", self.name(namespace))
            self.ip(namespace, "link", "set", "lo", "up")
        self.run("w", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
                 "net.ipv4.conf.default.rp_filter=0", "net.ipv4.conf.all.send_redirects=0")  # fmt: skip
        for host, address in ADDRESS.items():
            device = f"to-{host}"
            _ip("link", "add", device, "netns", self.name("w"), "type", "veth", "peer", "name", "eth0",
                "netns", self.name(host))  # fmt: skip
            self.ip(host, "addr", "add", f"{address}/24", "dev", "eth0")
            self.ip(host, "link", "set", "eth0", "up")
            self.ip("w", "addr", "add", f"{GATEWAY[host]}/24", "dev", device)
            self.ip("w", "link", "set", device, "up")
            self.run("w", "sysctl", "-qw", f"net.ipv4.conf.{device}.rp_filter=0")
            self.ip(host, "route", "add", "default", "via", GATEWAY[host])
        self.ip("w", "tuntap", "add", "dev", TUN, "mode", "tun")
        self.ip("w", "link", "set", TUN, "mtu", "1500", "txqueuelen", "10000", "up")
        self.ip("w", "route", "add", "default", "dev", TUN, "table", "100")

    def through_wan(self, switched_on: bool) -> None:
        """Route packets from the hosts into the TUN device, or let the kernel forward them directly."""
        for host in ADDRESS:
            self.ip("w", "rule", "add" if switched_on else "del", "iif", f"to-{host}", "lookup", "100")

    def start_wan(self, links: Path, *flags: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start ``python -m wan`` in namespace ``w``; return the process once it forwards packets.

        *prefix* is put before the command, *flags* after it.
        """
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'lab'}"}
        command = [
            *prefix,
            sys.executable,
            "-m",
            "wan",
            "--links",
            str(links),
            "--tun",
            TUN,
            "--log-level",
            "WARNING",
            *flags,
        ]
        process = self.start("w", *command, env=environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        while line and TUN not in line:
            line = process.stdout.readline()
        if not line:
            raise BenchError(f"wan did not start (exit code {process.wait()})")
        return process

    def start(self, namespace: str, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in a namespace; `ip netns exec` replaces itself, so the process ID is the command's own."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name(namespace), *command],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,  # Ctrl-C then interrupts only this process, which stops the others
        )
        self._processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop a process that was started with `start`."""
        self._processes.remove(process)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def run(self, namespace: str, *command: str) -> str:
        """Run a command in a namespace; return its standard output."""
        return _run("ip", "netns", "exec", self.name(namespace), *command)

    def ip(self, namespace: str, *arguments: str) -> None:
        """Run an ``ip`` command inside a namespace."""
        _ip("-n", self.name(namespace), *arguments)

    def close(self) -> None:
        """Stop all processes and remove the namespaces; a second Ctrl-C does not interrupt the cleanup."""
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Stop in reverse order, so that senders stop before the servers that reply to them.
        for process in reversed(self._processes.copy()):
            self.stop(process)
        for namespace in ("w", *ADDRESS):
            with contextlib.suppress(BenchError):
                _ip("netns", "del", self.name(namespace))
        signal.signal(signal.SIGINT, interrupt)


def write_links(path: Path, rtt_ms: float, **settings: float) -> Path:
    """Write a `wan` links file with two regions and one link; return its path."""
    lines = [f"{key} = {value}" for key, value in {"rtt_ms": rtt_ms, **settings}.items()]
    regions = [f'{host} = "{address.rsplit(".", 1)[0]}.0/24"' for host, address in ADDRESS.items()]
    path.write_text("\n".join(["[regions]", *regions, "[[link]]", 'between = ["a", "b"]', *lines]) + "\n")
    return path


def real_time(priority: int) -> list[str]:
    """Return the command prefix for real-time priority, as used for `wan` in the lab; empty if not permitted."""
    command = ["chrt", "--rr", str(priority)]
    return command if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0 else []


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise BenchError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def machine(cores: Sequence[int] | None = None) -> dict[str, object]:
    """Return the properties of this machine that affect the results."""
    load = os.getloadavg()[0]
    return {
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "cpus": len(cores or os.sched_getaffinity(0)),
        "load_1m": round(load, 2),
    }
