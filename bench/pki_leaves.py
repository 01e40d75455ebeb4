"""Compares the CA's rate of issuance (leaves built, linted, signed and logged per CPU-second) with ``openssl speed``.

    python bench/pki_leaves.py [--leaves 20000] [--rounds 3] [--json]

Every leaf has its own name and one of a hundred P-256 keys.  As in the server, all leaves that are issued at the same
time, here 50, are logged with one write.  Rounds alternate between the CA and OpenSSL.
"""

import argparse
import gc
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from acme_server.leaves import Leaves
from authority import IssuanceLog, Issuer, Store, Urls, issue_intermediate, issue_root, new_key
from authority.issuance_log import audit
from authority.profiles import PEER
from telemetry import Telemetry

#: Target: minimum ratio of our leaves to OpenSSL's signatures, both per CPU-second.
BAR = 0.3
#: Number of leaf certificates logged per write; equal to the number of clients in `acme_orders`.
BATCH = 50
URLS = Urls("http://ca.example.com/crl/1.crl", "http://ca.example.com/issuer/1.cer", "http://ca.example.com/ocsp/1")


def ours(folder: Path, leaves: int) -> float:
    """Return the number of leaves per CPU-second."""
    root_key, key, now = new_key(), new_key(), time.time()
    root = Issuer(issue_root(root_key, "bench root", now), root_key, ())
    issuing = issue_intermediate(root, key.public_key(), "bench CA", now)
    keys = [new_key().public_key() for _ in range(100)]
    path = folder / "issuance.log"
    path.unlink(missing_ok=True)
    with closing(Store(folder / "store.sqlite")) as store:
        log = IssuanceLog(path)
        issuer = Issuer(issuing, key, (issuing,))
        ca = Leaves(Telemetry("bench"), issuer, store, 3600.0, URLS, log, {PEER.name: PEER})
        gc.freeze()  # as the server does at start-up
        begin = time.process_time()
        for number in range(leaves):
            ca.issue(keys[number % len(keys)], (f"n{number}.example.com",), now, "account")
            if number % BATCH == BATCH - 1:
                log.flush()
        log.flush()
        took = time.process_time() - begin
    if not (found := audit(path, ())).ok or found.entries != leaves:
        raise RuntimeError(f"expected {leaves} intact entries in the log, got {found}")
    return leaves / took


def by_openssl() -> float:
    """Return the number of P-256 signatures per CPU-second, as measured by ``openssl speed``."""
    command = ["openssl", "speed", "-seconds", "1", "ecdsap256"]
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if (found := re.search(r"nistp256\)\s+\S+s\s+\S+s\s+([\d.]+)", done)) is None:
        raise RuntimeError(f"expected signatures per second, got {done}")
    return float(found[1])


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="pki_leaves", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leaves", type=int, default=20_000, help="in each round (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if shutil.which("openssl") is None:
        print("skipped: openssl not found")
        return 0
    with tempfile.TemporaryDirectory() as name:
        pairs = [(ours(Path(name), args.leaves), by_openssl()) for _ in range(args.rounds)]
    leaves, signatures = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    if args.json:
        print(json.dumps({"leaves_per_cpu_s": leaves, "openssl_signatures_per_s": signatures, "ratio": ratio}))
    else:
        print(f"leaves per CPU-second {leaves:.0f}, openssl signatures {signatures:.0f}: {ratio:.2f}, bar {BAR}")
    return int(ratio < BAR)


if __name__ == "__main__":
    sys.exit(main())
