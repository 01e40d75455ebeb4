"""Compares our generator with Locust's FastHttpUser by HTTPS requests per CPU-second, against the same nginx.

    python bench/generator_https.py [--seconds 2] [--repeat 3] [--json]

Both verify the certificate chain. Our generator sends on schedule and records the duration of each phase, the
certificate's serial number, and the latency from the scheduled send time. Locust sends as fast as it can and records
one rounded time per request. The figure is requests per CPU-second of the generator process at its highest sustained
rate. CPU time is used because some machines have no core to spare for the generator; the highest rate is used because
a busier process spends less CPU time per request. Rounds alternate, and the median is reported. A run at half of that
rate measures our generator's lag (the delay behind the schedule), which has its own target. nginx (one worker) listens
on loopback.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key
from generator import MAX_WAITED, Kind, Load, Schedule, Tally, Target, constant

#: Host name in the certificate; the CA's name constraints permit it. The name is never looked up, because both
#: generators get the IP address.
NAME = "www.example.com"
#: Number of open connections per generator, and number of Locust users.
CONNECTIONS = 16
#: Targets: minimum ratio of our requests per CPU-second to Locust's, and maximum lag (99th percentile) at half load, in
#: seconds.
RATIO, LAG = 1.5, 0.005
KINDS: tuple[Kind, ...] = ("pooled", "fresh")
#: Initial rate of the capacity search, in requests per second, keyed by kind of connection; and minimum ratio of
#: achieved to offered rate at which the generator counts as keeping up.
PROBE = {"pooled": 4000.0, "fresh": 200.0}
KEEPS_UP = 0.93

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 60s; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ default_type text/plain; return 200 "{body}"; }}
  }}
}}
"""

LOCUSTFILE = """
from locust import FastHttpUser, events, task
import json, ssl, time
import gevent.socket
resolve = gevent.socket.getaddrinfo  # the certificate needs the name; skip the lookup
gevent.socket.getaddrinfo = lambda host, *more, **named: resolve("127.0.0.1", *more, **named)
CONTEXT = ssl.create_default_context(cafile={trust!r})
class Hot(FastHttpUser):
    insecure = False
    ssl_context_factory = staticmethod(lambda: CONTEXT)
    connection_timeout = network_timeout = 10.0
    @task
    def loop(self):
        while True:
            self.client.get("/", headers={headers!r})
@events.spawning_complete.add_listener
def measure(user_count, **_):
    gevent.spawn(window)
def window():
    gevent.sleep(0.5)  # connections open
    total = events_environment.stats.total
    began, cpu, done, lost = time.monotonic(), time.process_time(), total.num_requests, total.num_failures
    gevent.sleep({seconds!r})  # the measured window
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    print("RESULT " + json.dumps(dict(done=total.num_requests - done, lost=total.num_failures - lost, \
causes=[str(e.error) for e in events_environment.stats.errors.values()], took=took, cpu=cpu)), flush=True)
    events_environment.runner.quit()
@events.init.add_listener
def keep(environment, **_):
    global events_environment
    events_environment = environment
"""


class BenchError(Exception):
    """The measurement failed; the message describes the cause."""


@contextmanager
def nginx(folder: Path) -> Iterator[Target]:
    """Run nginx with a certificate chain from our CA; yield the request target."""
    now = time.time()
    root_key, issuing_key, key = new_key(), new_key(), new_key()
    root = issue_root(root_key, "bench root", now)
    issuing = issue_intermediate(Issuer(root, root_key, ()), issuing_key.public_key(), "bench CA", now)
    leaf = issue_leaf(Issuer(issuing, issuing_key, (issuing,)), key.public_key(), [NAME], now, 3600.0)
    (folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "chain.pem").write_bytes(leaf.public_bytes(Encoding.PEM) + issuing.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, body="x" * 1000))
    server = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise BenchError(f"expected nginx to start, got exit code {server.returncode}")
            time.sleep(0.05)  # poll, because nginx does not report when it listens
        yield Target(NAME, port, "/", folder / "root.pem", address="127.0.0.1")
    finally:
        server.terminate()
        server.wait(5)


async def load(target: Target, kind: Kind, rate: float, seconds: float) -> dict[str, float]:
    """Send requests at *rate* per second; return counts, elapsed time, CPU time and lag, in seconds."""
    tally = Tally()
    schedule = Schedule(constant(rate, seconds))
    made = Load(target, schedule, kinds=(kind,), keep=False, on_done=tally.add, pool=CONNECTIONS, timeout=30.0)
    began, cpu = time.monotonic(), time.process_time()
    await made.run()
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    if tally.lost:
        raise BenchError(f"expected every request to be answered, got {dict(tally.errors)}")
    if not len(tally.times[kind, "first_byte"]):
        raise BenchError("expected phases, got none")
    gate = made.starvation()
    return {"done": tally.ok.total(), "took": took, "cpu": cpu, "lag_p99": gate.lag_p99, "waited": gate.waited}


def ours(target: Target, kind: Kind, seconds: float, rate: float) -> dict[str, float]:
    """Measure our generator in this process at *rate* requests per second; 0 means the highest sustained rate."""

    async def search() -> float:
        offered, reached = PROBE[kind], 0.0
        while True:
            probe = await load(target, kind, offered, 0.4)
            rate = probe["done"] / probe["took"]
            if rate < KEEPS_UP * offered:
                return max(rate, reached)
            offered, reached = offered * 1.3, rate

    async def run() -> dict[str, float]:
        offered = rate or await search()
        return {**await load(target, kind, offered, seconds), "offered": offered}

    return uvloop.run(run())


def locust(target: Target, kind: Kind, folder: Path, seconds: float) -> dict[str, float]:
    """Measure Locust's FastHttpUser in a separate process."""
    file = folder / "peer.py"
    file.write_text(
        LOCUSTFILE.format(
            trust=str(target.trust), headers={"Connection": "close"} if kind == "fresh" else {}, seconds=seconds
        )
    )
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "-u", str(CONNECTIONS), "-r", "1000",
               "--host", f"https://{NAME}:{target.port}", "--only-summary"]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise BenchError(f"expected Locust to report, got: {ran.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    if found["lost"]:
        raise BenchError(f"expected every request of Locust to be answered, got {found['causes']}")
    return found


def own_process(target: Target, kind: Kind, seconds: float, rate: float) -> dict[str, float]:
    """Measure our generator in a separate process, for a fair comparison with Locust."""
    command = [sys.executable, __file__, "--role", json.dumps([target.port, str(target.trust), kind, seconds, rate])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds, check=False)
    if ran.returncode:
        raise BenchError(ran.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def bench(seconds: float, repeat: int) -> dict[str, Any]:
    """Measure both generators in alternating rounds, then our generator's lag at half load."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker process runs as a different user
        with nginx(folder) as target:
            runs: dict[str, dict[str, list[dict[str, float]]]] = {kind: {"ours": [], "locust": []} for kind in KINDS}
            for _ in range(repeat):
                for kind in KINDS:
                    runs[kind]["locust"].append(locust(target, kind, folder, seconds))
                    rate = runs[kind]["ours"][0]["offered"] if runs[kind]["ours"] else 0.0
                    runs[kind]["ours"].append(own_process(target, kind, seconds, rate))
            half = own_process(target, "pooled", seconds, runs["pooled"]["ours"][0]["offered"] / 2)
    kinds = {}
    for name, by in runs.items():
        figures: dict[str, Any] = {}
        for who, measured in by.items():
            per_cpu = [run["done"] / run["cpu"] for run in measured]
            figures[who] = {
                "per_cpu_s": round(statistics.median(per_cpu)),
                "per_s": round(statistics.median(run["done"] / run["took"] for run in measured)),
                "runs": [round(each) for each in per_cpu],
            }
        figures["ratio"] = round(figures["ours"]["per_cpu_s"] / figures["locust"]["per_cpu_s"], 2)
        kinds[name] = figures
    lag = half["lag_p99"]
    return {"bench": "generator_https", "seconds": seconds, "connections": CONNECTIONS, "kinds": kinds,
            "half_load": {"per_s": round(half["offered"]), "lag_p99_ms": round(lag * 1e3, 3),
                          "waited": round(half["waited"], 3)},
            "promise": {"ratio": RATIO, "lag_p99_ms": LAG * 1e3},
            "machine": {"cpus": os.cpu_count(), "python": sys.version.split()[0], "kernel": os.uname().release},
            "ratio_kept": kinds["pooled"]["ratio"] >= RATIO, "lag_kept": lag <= LAG,
            "busy": half["waited"] > MAX_WAITED}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    lines = [
        f"HTTPS generated by one process, chain verified, nginx on loopback, {report['connections']} connections",
        "connections  generator      requests/CPU-s  requests/s   ratio  runs (requests/CPU-s)",
    ]
    for kind, figures in report["kinds"].items():
        for who, ratio in (("ours", figures["ratio"]), ("locust", 1.0)):
            each = figures[who]
            name = "FastHttpUser" if who == "locust" else "ours, phases"
            runs = " ".join(f"{run:,}" for run in each["runs"])
            lines.append(f"{kind:11}  {name:13}  {each['per_cpu_s']:14,}  {each['per_s']:10,}  {ratio:6.2f}  {runs}")
    half, promise = report["half_load"], report["promise"]
    lag = "kept" if report["lag_kept"] else "not judged, the machine was busy" if report["busy"] else "BROKEN"
    lines.append(
        f"at {half['per_s']:,} requests/s, half of what it reached, ours began {half['lag_p99_ms']} ms late "
        f"at the 99th percentile (no CPU was free for {half['waited']:.0%} of the time)"
    )
    lines.append(
        f"target: ratio >= {promise['ratio']} (pooled): {'kept' if report['ratio_kept'] else 'BROKEN'}; "
        f"lag <= {promise['lag_p99_ms']:g} ms: {lag}; {report['machine']}"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each run")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.role:
        port, trust, kind, seconds, rate = json.loads(args.role)
        print(json.dumps(ours(Target(NAME, port, "/", Path(trust), address="127.0.0.1"), kind, seconds, rate)))
        return 0
    if shutil.which("nginx") is None:
        print("generator_https: skipped: nginx is not installed (apt-get install nginx-light)", file=sys.stderr)
        return 0
    try:
        report = bench(args.seconds, args.repeat)
    except BenchError as error:
        print(f"generator_https: error: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    print(json.dumps(report) if args.json else table(report))
    if report["ratio_kept"] and not report["lag_kept"] and report["busy"]:
        return 4
    return 0 if report["ratio_kept"] and report["lag_kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
