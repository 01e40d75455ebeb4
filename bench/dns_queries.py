"""Compares our name server with NSD, and our resolver with Unbound, by DNS queries answered per CPU-second.

    python bench/dns_queries.py [--seconds 3] [--repeat 5] [--json]

dnsperf runs on one core and sends UDP queries over loopback; the server runs on another core. Rounds alternate between
the two servers, and the median is reported. dnsperf sends from four sockets, like a few busy resolvers; in one row it
sends from a hundred sockets with one query each, like separate clients. The reported figure is the number of answers
per second of the server's CPU time; it does not depend on the load from dnsperf or other programs. Requires nsd,
unbound, dnsperf, and root privileges (for a root name server on 127.0.1.10 port 53, which both resolvers use).
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Targets: minimum ratio of our queries per CPU-second to the peer's; for a zone with a million names, the maximum loss
#: of throughput compared with ten names, and the maximum memory in MiB.
RATIOS = {"10 names": 1.0, "100,000 names": 0.9, "1,000 hot names": 1.2}
MAX_LOSS, MAX_MEMORY = 0.35, 450.0
SERVER_CPU, LOAD_CPU = 0, 1
ROOT = "127.0.1.10"
HEAD = "$TTL 3600\n@ IN SOA ns1 h 1 7200 1800 1209600 300\n@ IN NS ns1\nns1 IN A 192.0.2.1\n"
#: NSD configuration: no rate limit, minimal responses like ours, and socket buffers that hold a burst of queries.
NSD = """server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  logfile: "{folder}/nsd.log"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  minimal-responses: yes
  receive-buffer-size: 1048576
  send-buffer-size: 1048576
remote-control:
  control-enable: no
"""
UNBOUND = """server:
  interface: 127.0.0.1@{port}
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  root-hints: "{hints}"
  module-config: "iterator"
  do-not-query-localhost: no
  do-ip6: no
  so-rcvbuf: 1m
  so-sndbuf: 1m
  use-syslog: no
  verbosity: 0
remote-control:
  control-enable: no
"""


class BenchError(Exception):
    """The measurement failed; the message describes the cause."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its process IDs and its port."""

    pids: tuple[int, ...]
    port: int

    def cpu(self) -> float:
        """Return the CPU time used by all threads of the server's processes, in seconds."""
        threads = (thread for pid in self.pids for thread in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def memory(self) -> float:
        """Return the resident memory of the server's largest process, in MiB."""
        found = (re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in self.pids)
        return max(int(match[1]) / 1024 for match in found if match)


def free_port() -> int:
    """Return a port number that is free for both UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                tcp.bind(udp.getsockname())
                return int(udp.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], port: int, address: str = "127.0.0.1") -> Iterator[Server]:
    """Run a server on one core; yield it when it replies to queries, and stop it at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(address, port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"expected {command[0]} to answer on port {port}, it did not")
            time.sleep(0.05)  # poll until the server is ready
        server = Server(tuple(family(process.pid)), port)
        for pid in server.pids:
            os.sched_setaffinity(pid, {SERVER_CPU})
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def family(pid: int) -> Iterator[int]:
    """Yield *pid* and the IDs of all its descendants."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def answers(address: str, port: int) -> bool:
    """Return whether a server at *address* and *port* replies to a query for the root's NS records."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((address, port))
            sock.send(bytes.fromhex("000101000001000000000000" + "0000020001"))
            return len(sock.recv(4096)) >= 12
        except OSError:
            return False


def zone_file(path: Path, count: int, names: str = "host{}") -> Path:
    with path.open("w") as file:
        file.write(HEAD)
        file.writelines(f"{names.format(i)} IN A 10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}\n" for i in range(count))
    return path


def query_file(path: Path, count: int, suffix: str, *, any_case: bool) -> Path:
    rng = random.Random(1)
    with path.open("w") as file:
        for i in range(min(count, 300_000) if not any_case else 300_000):
            name = f"host{rng.randrange(count) if any_case else i}.{suffix}"
            spelled = "".join(rng.choice((c, c.upper())) for c in name) if any_case else name
            file.write(f"{spelled} A\n")
    return path


def ask(server: Server, queries: Path, seconds: float, sockets: int = 4) -> dict[str, float]:
    """Run dnsperf once, with up to 100 outstanding queries from *sockets* sockets.

    Returns the answers per second of the server's CPU time, the answers per second, the number of lost queries, and the
    mean response time in milliseconds.
    """
    before = server.cpu()
    command = ["taskset", "-c", str(LOAD_CPU), "dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", str(queries)]
    command += ["-l", f"{seconds:g}", "-c", str(sockets), "-T", "1", "-q", "100"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    used = server.cpu() - before
    completed = re.search(r"Queries completed:\s+(\d+)", ran.stdout)
    lost = re.search(r"Queries lost:\s+(\d+)", ran.stdout)
    latency = re.search(r"Average Latency \(s\):\s+([\d.]+)", ran.stdout)
    if completed is None or lost is None or latency is None or not int(completed[1]):
        raise BenchError(f"expected dnsperf to report, got: {ran.stderr.strip()[-200:]}")
    count = int(completed[1])
    return {"per_cpu_s": count / used, "per_s": count / seconds, "lost": int(lost[1]), "ms": 1000 * float(latency[1])}


def compare(ours: Server, peer: Server, queries: Path, seconds: float, repeat: int, sockets: int = 4) -> dict[str, Any]:
    """Measure two servers in alternating rounds; return the medians and the median ratio."""
    for server in (ours, peer):
        ask(server, queries, 0.5)
    return summary([tuple(ask(server, queries, seconds, sockets) for server in (ours, peer)) for _ in range(repeat)])


def summary(rounds: Sequence[tuple[dict[str, float], ...]]) -> dict[str, Any]:
    """Return the median of each server's rounds, and the median ratio of answers per CPU-second."""
    medians = [{key: round(statistics.median(r[i][key] for r in rounds), 3) for key in rounds[0][i]} for i in (0, 1)]
    ratio = statistics.median(mine["per_cpu_s"] / theirs["per_cpu_s"] for mine, theirs in rounds)
    return {"ours": medians[0], "peer": medians[1], "ratio": round(ratio, 3)}


def nameserver(zone: Path, origin: str, port: int, address: str = "127.0.0.1") -> list[str]:
    return [sys.executable, "-m", "nameserver", "--listen", f"{address}:{port}", "--zone", f"{origin}={zone}"]


def authoritative(
    folder: Path, count: int, seconds: float, repeat: int, *, any_case: bool = False, sockets: int = 4
) -> dict[str, Any]:
    zone = zone_file(folder / f"zone{count}", count)
    queries = query_file(folder / f"queries{count}", count, "big.test", any_case=any_case)
    mine, theirs = free_port(), free_port()
    zones = f"zone:\n  name: big.test\n  zonefile: {zone}\n"
    (folder / "nsd.conf").write_text(NSD.format(port=theirs, folder=folder) + zones)
    nsd = ["nsd", "-d", "-c", str(folder / "nsd.conf")]
    with running(nameserver(zone, "big.test.", mine), mine) as ours, running(nsd, theirs) as peer:
        return {**compare(ours, peer, queries, seconds, repeat, sockets), "memory_mib": round(ours.memory(), 1)}


def hot_names(folder: Path) -> tuple[Path, Path]:
    """Write a root zone (file ``root``) with a thousand names; return the paths of the root hints and the queries."""
    zone = zone_file(folder / "root", 1000, "host{}.bench")
    zone.write_text(zone.read_text().replace("ns1", "ns1.bench"))
    hints = folder / "hints"
    hints.write_text(f". 3600000 IN NS ns1.bench.\nns1.bench. 3600000 IN A {ROOT}\n")
    zone.write_text(zone.read_text().replace("192.0.2.1\n", f"{ROOT}\n", 1))
    return hints, query_file(folder / "hot", 1000, "bench", any_case=False)


def resolving(folder: Path, seconds: float, repeat: int) -> dict[str, Any]:
    """Compare the rates of cached answers; both resolvers use the same root server, which serves all names."""
    hints, queries = hot_names(folder)
    zone = folder / "root"
    mine, theirs = free_port(), free_port()
    (folder / "unbound.conf").write_text(UNBOUND.format(port=theirs, folder=folder, hints=hints))
    ours = [sys.executable, "-m", "resolver", "--listen", f"127.0.0.1:{mine}", "--hints", str(hints)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(nameserver(zone, ".", 53, ROOT), 53, ROOT))
        resolver = stack.enter_context(running(ours, mine))
        unbound = stack.enter_context(running(["unbound", "-d", "-c", str(folder / "unbound.conf")], theirs))
        return compare(resolver, unbound, queries, seconds, repeat)


def million(folder: Path, few: float, seconds: float) -> dict[str, Any]:
    """Measure a zone with a million names; *few* is the rate with ten names, in queries per CPU-second."""
    zone = zone_file(folder / "million", 1_000_000)
    queries = query_file(folder / "many", 1_000_000, "big.test", any_case=False)
    port = free_port()
    began = time.monotonic()
    with running(nameserver(zone, "big.test.", port), port) as ours:
        loaded = time.monotonic() - began
        ask(ours, queries, 0.5)
        rate = statistics.median(ask(ours, queries, seconds)["per_cpu_s"] for _ in range(3))
        memory = ours.memory()
    return {
        "load_s": round(loaded, 1),
        "per_cpu_s": round(rate),
        "loss": round(1 - rate / few, 3),
        "memory_mib": round(memory),
    }


def bench(seconds: float, repeat: int) -> dict[str, Any]:
    for name in ("nsd", "unbound", "dnsperf", "taskset"):
        if shutil.which(name) is None:
            raise BenchError(f"expected {name} on PATH; install it (apt-get install nsd unbound dnsperf util-linux)")
    if os.geteuid():
        raise BenchError("expected root, for a root server on port 53 of a loopback address")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = {
            "10 names": authoritative(folder, 10, seconds, repeat),
            "10 names, 100 sockets": authoritative(folder, 10, seconds, repeat, sockets=100),
            "100,000 names": authoritative(folder, 100_000, seconds, repeat, any_case=True),
            "1,000 hot names": resolving(folder, seconds, repeat),
        }
        large = million(folder, rows["10 names"]["ours"]["per_cpu_s"], seconds)
    kept = {case: rows[case]["ratio"] >= ratio for case, ratio in RATIOS.items()}
    kept["1,000,000 names"] = large["loss"] <= MAX_LOSS and large["memory_mib"] <= MAX_MEMORY
    promise = {**RATIOS, "loss": MAX_LOSS, "memory_mib": MAX_MEMORY}
    return {"bench": "dns_queries", "rows": rows, "million": large, "promise": promise, "kept": kept}


def table(report: dict[str, Any]) -> str:
    lines = [
        "DNS over UDP on loopback, answers per CPU-second of the server (answers per second, mean response time)",
        f"{'':22}{'ours':>28}{'NSD, Unbound':>28}{'ratio':>8}{'promise':>9}",
    ]
    for case, row in report["rows"].items():
        both = row["ours"], row["peer"]
        cells = [f"{each['per_cpu_s']:,.0f} ({each['per_s']:,.0f}, {each['ms']:.2f} ms)" for each in both]
        verdict = f"{RATIOS[case]:9.2f}  {'kept' if report['kept'][case] else 'BROKEN'}" if case in RATIOS else ""
        lines.append(f"{case:22}{cells[0]:>28}{cells[1]:>28}{row['ratio']:8.2f}{verdict}")
    large = report["million"]
    verdict = "kept" if report["kept"]["1,000,000 names"] else "BROKEN"
    lines.append(
        f"1,000,000 names: {large['per_cpu_s']:,} per CPU-second, {large['loss']:.0%} less than with ten "
        f"(promise {MAX_LOSS:.0%}); {large['memory_mib']} MiB (promise {MAX_MEMORY:.0f}); "
        f"ready after {large['load_s']} s  {verdict}"
    )
    lines.append(f"load average {report['load_average']:.1f}; {report['machine']}")
    return "\n".join(lines)


def run(bench: Callable[..., dict[str, Any]], table: Callable[[dict[str, Any]], str], **options: float) -> int:
    """Run a benchmark from the command line and print its report; return the exit code.

    Args:
        bench: runs the benchmark with *options* as keyword arguments; returns a report with the key ``kept``.
        table: formats the report.
        options: the command-line options with their defaults.
    """
    module = sys.modules[bench.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default:g}")
    parser.add_argument("--json", action="store_true")
    args = vars(parser.parse_args())
    as_json = args.pop("json")
    try:
        report = bench(**args)
    except BenchError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    machine = {"cpus": os.cpu_count(), "python": sys.version.split()[0], "kernel": os.uname().release}
    report |= args | {"load_average": os.getloadavg()[0], "machine": machine}
    print(json.dumps(report) if as_json else table(report))
    return 0 if all(report["kept"].values()) else 1


def main() -> int:
    return run(bench, table, seconds=3.0, repeat=5)


if __name__ == "__main__":
    sys.exit(main())
