"""Measures the accuracy of the delay that `wan` adds: one-way and round-trip error at 30 and 2,000 packets per second.

    python bench/wan_delay.py [--rtt 50] [--seconds 10] [--rates 30 2000] [--json]

Host ``a`` sends numbered UDP packets to host ``b`` at regular intervals, and ``b``'s kernel timestamps their arrival.
Both hosts read the same clock. ``b`` returns each packet, and ``a``'s kernel timestamps the reply. The error is the
measured delay minus the configured delay. It includes the delay of kernel forwarding, which the same run also measures
separately, without the TUN device. `wan` runs with real-time priority, as in the lab. If the kernel permits real-time
priority, `wan` is measured a second time without it. The sender and the receiver have a higher priority than `wan`, so
that waiting for a CPU does not distort the result. Requires root; creates its own network namespaces.
"""

import argparse
import json
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from wan_namespaces import ADDRESS, BenchError, Network, machine, real_time, write_links

PORT = 9000
#: Socket option (asm-generic/socket.h) that requests the kernel's receive time of each packet, in nanoseconds.
SO_TIMESTAMPNS = 35
#: Packet format: sequence number, send time and, in replies, arrival time at ``b``; times in nanoseconds since 1970.
PACKET = struct.Struct("=QQQ")
SIZE = 120
#: How long to wait for outstanding packets after the last packet is sent, in seconds.
PATIENCE = 1.0
#: Targets for the one-way error on an otherwise idle machine, in milliseconds.
MEDIAN_LIMIT, P99_LIMIT = 0.5, 2.0


def stamped(sock: socket.socket) -> tuple[bytes, int, tuple[str, int]]:
    """Receive one packet; return its data, the kernel's receive time in nanoseconds, and the sender's address."""
    data, ancillary, _, sender = sock.recvmsg(2048, 64)
    seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
    return data, seconds * 1_000_000_000 + nanoseconds, sender


def opened(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((address, port))
    return sock


def reflect() -> None:
    """Run as host ``b``: send every packet back with its arrival time."""
    sock = opened(ADDRESS["b"], PORT)
    print("ready", flush=True)
    while True:
        data, arrived, sender = stamped(sock)
        number, sent, _ = PACKET.unpack_from(data)
        sock.sendto(PACKET.pack(number, sent, arrived).ljust(SIZE, b"\0"), sender)


def probe(rate: float, seconds: float) -> None:
    """Run as host ``a``: send packets, receive the replies, and print the delays in nanoseconds."""
    sock = opened(ADDRESS["a"], 0)
    sock.connect((ADDRESS["b"], PORT))
    total, interval = max(1, round(rate * seconds)), round(1e9 / rate)
    one_way: list[int] = []
    round_trip: list[int] = []
    late: list[int] = []
    begin, sent = time.monotonic_ns(), 0
    end = begin + total * interval + round(PATIENCE * 1e9)
    while len(round_trip) < total and (now := time.monotonic_ns()) < end:
        if sent < total and now >= (slot := begin + sent * interval):
            sock.send(PACKET.pack(sent, time.time_ns(), 0).ljust(SIZE, b"\0"))
            late.append(now - slot)
            sent += 1
            continue
        until = begin + sent * interval if sent < total else end
        if select.select((sock,), (), (), max(0.0, (until - now) / 1e9))[0]:
            data, returned, _ = stamped(sock)
            _, left, arrived = PACKET.unpack_from(data)
            one_way.append(arrived - left)
            round_trip.append(returned - left)
    sock.close()
    print(json.dumps({"sent": sent, "one_way": one_way, "round_trip": round_trip, "send_late": late}))


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(delays_ns: list[int], expected_ms: float) -> dict[str, float]:
    """Return the median, 99th percentile, minimum and maximum of the signed error, in milliseconds."""
    errors = [delay / 1e6 - expected_ms for delay in delays_ns]
    return {
        "median_ms": round(statistics.median(errors), 4),
        "p99_ms": round(percentile(errors, 0.99), 4),
        "min_ms": round(min(errors), 4),
        "max_ms": round(max(errors), 4),
    }


def measure(network: Network, rate: float, seconds: float, rtt_ms: float) -> dict[str, Any]:
    process = network.start(
        "a", *real_time(2), sys.executable, __file__, "--role", "probe", "--rates", str(rate), "--seconds", str(seconds)
    )
    out, _ = process.communicate()
    network.stop(process)
    figures = json.loads(out)
    if not figures["round_trip"]:
        raise BenchError("expected packets to come back, got none")
    return {
        "rate": rate,
        "sent": figures["sent"],
        "lost": figures["sent"] - len(figures["round_trip"]),
        "one_way": summary(figures["one_way"], rtt_ms / 2),
        "round_trip": summary(figures["round_trip"], rtt_ms),
        "send_late_p99_ms": round(percentile(figures["send_late"], 0.99) / 1e6, 4),
    }


def bench(rtt_ms: float, seconds: float, rates: list[float]) -> dict[str, Any]:
    """Measure each rate through `wan` and through kernel forwarding only."""
    with tempfile.TemporaryDirectory() as folder, Network() as network:
        reflector = network.start("b", *real_time(2), sys.executable, __file__, "--role", "reflect")
        assert reflector.stdout is not None
        reflector.stdout.readline()
        kernel = [measure(network, rate, min(seconds, 3), 0) for rate in rates]
        links = write_links(Path(folder) / "links.toml", rtt_ms)
        network.through_wan(True)
        runs: dict[str, list[dict[str, Any]]] = {}
        for path, prefix in (("ordinary", []), ("wan", real_time(1))):
            if path == "ordinary" and not real_time(1):
                continue
            wan = network.start_wan(links, prefix=prefix)
            runs[path] = [measure(network, rate, seconds, rtt_ms) for rate in rates]
            network.stop(wan)
    ok = all(
        run["lost"] == 0
        and run["one_way"]["min_ms"] >= 0
        and run["one_way"]["median_ms"] <= MEDIAN_LIMIT
        and run["one_way"]["p99_ms"] <= P99_LIMIT
        for run in runs["wan"]
    )
    return {
        "bench": "wan_delay",
        "rtt_ms": rtt_ms,
        "seconds": seconds,
        "machine": machine(),
        "limits_ms": {"median": MEDIAN_LIMIT, "p99": P99_LIMIT},
        "ok": ok,
        "real_time": bool(real_time(1)),
        "kernel": kernel,
        **runs,
    }


def table(report: dict[str, Any]) -> str:
    lines = [
        f"wan: error of the delay at {report['rtt_ms']:g} ms RTT, in ms",
        f"target, one way on an idle machine: median <= {MEDIAN_LIMIT:g}, p99 <= {P99_LIMIT:g}",
        f"wan has {'real-time' if report['real_time'] else 'ordinary'} priority"
        + ("; 'ordinary' is wan without" if report["real_time"] else ": this kernel allows no other"),
        "packets/s  path      direction    median      p99      min      max   lost",
    ]
    for path in ("kernel", "ordinary", "wan"):
        for run in report.get(path, ()):
            for direction in ("one_way", "round_trip"):
                e = run[direction]
                lines.append(
                    f"{run['rate']:9g}  {path:8}  {direction:10}  {e['median_ms']:7.3f}  {e['p99_ms']:7.3f}  "
                    f"{e['min_ms']:7.3f}  {e['max_ms']:7.3f}  {run['lost']:5}"
                )
    lines.append(f"{'kept' if report['ok'] else 'NOT kept'}; {report['machine']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtt", type=float, default=50.0, help="configured round trip, ms")
    parser.add_argument("--seconds", type=float, default=10.0, help="per rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 2000.0], help="packets per second")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("probe", "reflect"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.role == "reflect":
        reflect()
    elif args.role == "probe":
        probe(args.rates[0], args.seconds)
    else:
        try:
            report = bench(args.rtt, args.seconds, args.rates)
        except BenchError as error:
            print(f"wan_delay: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        print(json.dumps(report) if args.json else table(report))
        return 0 if report["ok"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
