"""Compares our name server with NSD by the CPU time of zone transfers (AXFR of a zone with 100,000 names).

    python bench/dns_transfer.py [--names 100000] [--repeat 5] [--json]

A client on one core reads complete transfers over loopback, one at a time; the server runs on another core. Rounds
alternate between the two servers, and the median is reported. The reported figure is the number of records sent per
second of the server's CPU time. Two transfers are reported separately: the first one after the zone was loaded from its
file, and the first one after a change, because our server may have to encode the changed zone during that transfer.
During our server's transfers, a second client sends queries one at a time; the maximum response time shows how much
transfers delay queries. Finally, both servers start as secondaries of NSD, and the time from the start of each
server until it serves the zone is reported. Requires nsd.
"""

import http.client
import json
import os
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dns_queries import NSD, BenchError, Server, free_port, nameserver, run, running, zone_file

#: Targets: minimum ratio of our records per CPU-second to NSD's, and maximum response time during transfers in seconds.
RATIO, DELAY = 0.25, 0.05
#: Transfers per round; one transfer takes about 10 ms of CPU time, which is also the resolution of the clock.
TRANSFERS = 40
LOAD_CPU = 1
QUESTION = b"\3big\4test\0"


def query(qtype: int) -> bytes:
    return struct.pack("!6H", 7, 0, 1, 0, 0, 0) + QUESTION + struct.pack("!HH", qtype, 1)


def transfer(port: int, records: int) -> int:
    """Read one complete transfer of *records* records; return its size in bytes."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        message = query(252)
        sock.sendall(len(message).to_bytes(2, "big") + message)
        stream = sock.makefile("rb", buffering=1 << 20)
        received = size = 0
        while received < records:
            head = stream.read(2)
            body = stream.read(int.from_bytes(head, "big"))
            if len(head) < 2 or len(body) < 12 or body[3] & 15:
                raise BenchError(f"expected {records} records, got {received} and then {body[:12].hex() or 'nothing'}")
            received += int.from_bytes(body[6:8], "big")
            size += 2 + len(body)
    return size


def measure(server: Server, records: int) -> dict[str, float]:
    """Run `TRANSFERS` transfers; return records per CPU-second, records per second, and bytes per transfer."""
    before, began = server.cpu(), time.monotonic()
    sizes = [transfer(server.port, records) for _ in range(TRANSFERS)]
    took, used = time.monotonic() - began, server.cpu() - before
    return {
        "per_cpu_s": TRANSFERS * records / max(used, 0.01),
        "per_s": TRANSFERS * records / took,
        "bytes": float(sizes[0]),
    }


def cost(server: Server, records: int) -> float:
    """Run one transfer; return the server's CPU time in seconds."""
    before = server.cpu()
    transfer(server.port, records)
    return server.cpu() - before


def first(server: Server, admin: int, records: int) -> float:
    """Change a record of the zone; return the CPU time of the first transfer of the new version, in seconds."""
    body = json.dumps({"name": "host1", "type": "A", "ttl": 60, "rdata": [f"10.9.9.{time.monotonic_ns() % 250}"]})
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("PUT", "/admin/zones/big.test./records", body, {"Authorization": "Bearer bench"})
    if (status := connection.getresponse().status) != 200:
        raise BenchError(f"expected the server to change a record, got status {status}")
    connection.close()
    time.sleep(0.2)  # wait until the thread that publishes the change has ended
    return cost(server, records)


def delays(port: int, records: int) -> list[float]:
    """Return the response times of queries sent during transfers, in seconds, sorted."""
    done, times = threading.Event(), list[float]()

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            while not done.is_set():
                began = time.perf_counter()
                sock.send(query(6))
                sock.recv(4096)
                times.append(time.perf_counter() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(TRANSFERS):
            transfer(port, records)
    finally:
        done.set()
        asking.join()
    return sorted(times)


def secondary(command: list[str], port: int) -> float:
    """Start a secondary; return the time from its start until it serves the zone, in seconds."""
    began = time.monotonic()
    with running(command, port), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < began + 60:
            sock.send(query(6))
            if sock.recv(4096)[3] & 15 == 0:
                return time.monotonic() - began
            time.sleep(0.01)  # polls until the secondary serves the zone
    raise BenchError(f"expected {command[0]} to transfer the zone within 60 s, it did not")


def into(folder: Path, primary: int, repeat: int) -> dict[str, float]:
    """Return the median times in seconds that our server and NSD take to serve the zone as secondaries."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(repeat):
        here, port = folder / f"secondary{number}", free_port()
        here.mkdir()
        stanza = f"zone:\n  name: big.test\n  zonefile: copy\n  request-xfr: AXFR 127.0.0.1@{primary} NOKEY\n"
        (here / "nsd.conf").write_text(NSD.format(port=port, folder=here) + stanza)
        times["peer"].append(secondary(["nsd", "-d", "-c", str(here / "nsd.conf")], port))
        port = free_port()
        ours = [sys.executable, "-m", "nameserver", "--listen", f"127.0.0.1:{port}"]
        times["ours"].append(secondary([*ours, "--secondary", f"big.test.=127.0.0.1:{primary}"], port))
    return {who: round(statistics.median(each), 2) for who, each in times.items()}


def bench(names: int, repeat: int) -> dict[str, Any]:
    if shutil.which("nsd") is None:
        raise BenchError("expected nsd on PATH; install it (apt-get install nsd)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zone, records = zone_file(folder / "zone", names), names + 4
        mine, theirs = free_port(), free_port()
        stanza = f"zone:\n  name: big.test\n  zonefile: {zone}\n  provide-xfr: 127.0.0.1 NOKEY\n"
        (folder / "nsd.conf").write_text(NSD.format(port=theirs, folder=folder) + stanza)
        token, admin = folder / "token", free_port()
        token.write_text("bench")
        ours = [*nameserver(zone, "big.test.", mine), "--allow-transfer", "127.0.0.1"]
        ours += ["--admin", f"127.0.0.1:{admin}", "--token-file", str(token)]
        nsd = ["nsd", "-d", "-c", str(folder / "nsd.conf")]
        with running(ours, mine) as server, running(nsd, theirs) as peer:
            os.sched_setaffinity(0, {LOAD_CPU})
            loaded = cost(server, records)
            transfer(theirs, records)
            rounds = [(measure(server, records), measure(peer, records)) for _ in range(repeat)]
            waits = delays(mine, records)
            changed = statistics.median(first(server, admin, records) for _ in range(repeat))
            secondaries = into(folder, theirs, repeat)
    medians = [{key: round(statistics.median(r[i][key] for r in rounds)) for key in rounds[0][i]} for i in (0, 1)]
    ratio = statistics.median(one["per_cpu_s"] / other["per_cpu_s"] for one, other in rounds)
    delay = {"queries": len(waits), "median_ms": 1000 * statistics.median(waits), "max_ms": 1000 * waits[-1]}
    firsts = {
        key: {"cpu_s": round(value, 4), "ratio": round(records / value / medians[1]["per_cpu_s"], 2)}
        for key, value in (("loaded", loaded), ("changed", changed))
    }
    kept = {"ratio": ratio >= RATIO, "delay": waits[-1] <= DELAY}
    kept |= {key: each["ratio"] >= RATIO for key, each in firsts.items()}
    return {"bench": "dns_transfer", "ours": medians[0], "peer": medians[1], "ratio": round(ratio, 3), "first": firsts,
            "secondary_s": secondaries, "delay": {key: round(value, 2) for key, value in delay.items()},
            "promise": {"ratio": RATIO, "delay_s": DELAY}, "kept": kept}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    def verdict(key: str) -> str:
        return "kept" if report["kept"][key] else "BROKEN"

    lines = [f"AXFR of {report['names']:,} names over loopback"]
    for who, row in (("ours", report["ours"]), ("NSD", report["peer"])):
        rates = f"{row['per_cpu_s']:,} records per CPU-second ({row['per_s']:,} per second)"
        lines.append(f"  {who:5}{rates}, {row['bytes']:,} bytes")
    lines.append(f"  ratio {report['ratio']:.2f} (promise {RATIO:.2f})  {verdict('ratio')}")
    for key, each in report["first"].items():
        took = f"{1000 * each['cpu_s']:.1f} ms of CPU time, ratio {each['ratio']:.2f}"
        lines.append(f"  our first transfer of a {key} zone: {took} (promise {RATIO:.2f})  {verdict(key)}")
    delay = report["delay"]
    lines.append(
        f"  answers during our transfers: median {delay['median_ms']:g} ms, longest {delay['max_ms']:g} ms of "
        f"{delay['queries']:,} (promise {1000 * DELAY:g} ms)  {verdict('delay')}"
    )
    times = report["secondary_s"]
    lines.append(f"  a secondary serves the zone {times['ours']:g} s after its start, NSD {times['peer']:g} s")
    lines.append(f"load average {report['load_average']:.1f}; {report['machine']}")
    return "\n".join(lines)


def main() -> int:
    return run(bench, table, names=100_000, repeat=5)


if __name__ == "__main__":
    sys.exit(main())
