"""Compares the CA with OpenSSL by OCSP responses per second and by the time to create a large CRL.

    python bench/pki_revocation.py [--certificates 1000] [--entries 100000] [--seconds 3] [--json]

Our responder receives GET requests for many certificates over persistent connections (RFC 5019). ``openssl ocsp`` signs
each response and closes each connection, so it receives POST requests on new connections. For the CRL, the CA's store
contains the given number of revoked certificates, and ``openssl ca -gencrl`` reads an index of the same size. Requires
h2load and openssl; uses one CPU for the server and one for the load generator.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from acme_server.publication import Publications
from authority import Certificate, IssuanceLog, Issuer, Store, issue_root, new_key
from telemetry import Telemetry

#: Targets: minimum number of OCSP responses per second, and maximum times to create the first CRL and its successor,
#: in seconds.  The CA answers no other request while it creates the successor.
BAR_OCSP, BAR_CRL, BAR_AGAIN = 1000.0, 3.0, 0.05
#: Number of connections from the load generator to our responder.
CONNECTIONS = 16
OPENSSL_CA = """
[ca]
default_ca = this
[this]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
default_md = sha256
default_crl_days = 1
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid
"""


def filled(folder: Path, issuer: Issuer, valid: int, revoked: int) -> Store:
    """Return a store with *valid* valid and *revoked* revoked certificates; their serial numbers start at 1."""
    store, now = Store(folder / "store.sqlite"), time.time()
    for serial in range(1, valid + revoked + 1):
        bad = serial > valid
        row = Certificate(f"{serial:x}", None, ("a.example.com",), now, now + 86400, now, "", now if bad else None,
                          1 if bad else None, issuer.key_id.hex())  # fmt: skip
        store.put_certificate(row)
    return store


def paths(issuer: Issuer, name: str, count: int) -> list[str]:
    """Return the URL paths of OCSP requests with GET, for the certificates with serial numbers 1 to *count*."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(issuer.certificate, issuer.certificate, hashes.SHA1())  # noqa: S303 - RFC 5019 requires SHA-1
    keys = builder.build()
    found = []
    for serial in range(1, count + 1):
        one = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            keys.issuer_name_hash, keys.issuer_key_hash, serial, keys.hash_algorithm
        )
        found.append(f"/ocsp/{name}/{quote(base64.b64encode(one.build().public_bytes(Encoding.DER)), safe='')}")
    return found


def serve(folder: Path, issuer: Issuer, certificates: int, ready: Callable[[tuple[int, str]], None]) -> None:
    """Run our responder in this process; call *ready* with its port and the issuer's name as used in URL paths."""

    async def run() -> None:
        store = filled(folder, issuer, certificates, 0)
        published = Publications(Telemetry("bench"), store, IssuanceLog(folder / "issuance.log"))
        one = published.add(issuer)
        published.renew_if_due(time.time())
        runner = web.AppRunner(published.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready((runner.addresses[0][1], one.name))
        await asyncio.Event().wait()

    asyncio.run(run())


def ours(folder: Path, issuer: Issuer, certificates: int, seconds: float) -> float:
    """Return the number of responses per second of our responder."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(folder, issuer, certificates, sender.send))
    server.start()
    try:
        port, name = receiver.recv()
        urls = folder / "urls"
        urls.write_text("".join(f"http://127.0.0.1:{port}{path}\n" for path in paths(issuer, name, certificates)))
        command = ["h2load", "--h1", f"-c{CONNECTIONS}", "-t1", f"-D{seconds:g}", "--warm-up-time=1", f"-i{urls}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        server.kill()
        server.join()
    rate = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", done)
    if rate is None or not re.search(r"[1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", done):
        raise RuntimeError(f"expected status 200 only, got {done}")
    return float(rate[1])


def by_openssl(folder: Path, issuer: Issuer, seconds: float) -> float:
    """Return the number of responses per second of ``openssl ocsp`` if requests are sent one after the other."""
    request = ocsp.OCSPRequestBuilder().add_certificate(issuer.certificate, issuer.certificate, hashes.SHA1()).build()  # noqa: S303 - RFC 5019 requires SHA-1
    body = request.public_bytes(Encoding.DER)
    head = f"POST / HTTP/1.0\r\nContent-Type: application/ocsp-request\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = {name: str(folder / name) for name in ("index.txt", "ca.pem", "ca.key")}
    command = ["openssl", "ocsp", "-index", files["index.txt"], "-port", str(port), "-CA", files["ca.pem"], "-rsigner",
               files["ca.pem"], "-rkey", files["ca.key"]]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            count, begin = 0, 0.0
            while not begin or time.monotonic() < begin + seconds:
                try:
                    with socket.create_connection(("127.0.0.1", port)) as connection:
                        connection.sendall(head.encode() + body)
                        count += len(b"".join(iter(lambda: connection.recv(65536), b""))) > 100
                except ConnectionRefusedError:
                    time.sleep(0.05)  # wait until the responder listens
                    continue
                begin = begin or time.monotonic()
        finally:
            server.kill()
    return count / seconds


def crl(folder: Path, issuer: Issuer, entries: int) -> tuple[float, float, float, int]:
    """Create a CRL in our CA and with OpenSSL, and a second one in our CA after one more revocation.

    Returns:
        The times in seconds that our CA takes for the first and for the second CRL, the time that OpenSSL takes, and
        the size of our CRL in bytes.
    """
    with closing(filled(folder, issuer, 1, entries - 1)) as store:
        published = Publications(Telemetry("bench"), store, IssuanceLog(folder / "crl.log"))
        one = published.add(issuer)
        begin = time.monotonic()
        one.crl.renew_if_due(time.time())
        took = time.monotonic() - begin
        store.revoke("1", time.time(), 1)
        begin = time.monotonic()
        published.changed("1")
        one.crl.renew_if_due(time.time())
        again = time.monotonic() - begin
    if (found := len(x509.load_der_x509_crl(one.crl.der))) != entries:
        raise RuntimeError(f"expected {entries} entries, got {found}")
    line = "R\t360101000000Z\t260101000000Z,keyCompromise\t{:06X}\tunknown\t/CN=a.example.com\n"
    (folder / "index.txt").write_text("".join(line.format(serial) for serial in range(1, entries + 1)))
    command = ["openssl", "ca", "-config", str(folder / "openssl.cnf"), "-gencrl", "-cert", str(folder / "ca.pem"),
               "-keyfile", str(folder / "ca.key"), "-out", str(folder / "peer.pem")]  # fmt: skip
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return took, again, time.monotonic() - begin, len(one.crl.der)


def main(argv: list[str] | None = None) -> int:
    """Run both comparisons; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="pki_revocation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--certificates", type=int, default=1000, help="that OCSP is asked about (default 1000)")
    parser.add_argument("--entries", type=int, default=100_000, help="of the CRL (default 100000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each OCSP measurement (default 3)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if lacking := [each for each in ("h2load", "openssl") if shutil.which(each) is None]:
        print(f"skipped: {', '.join(lacking)} not found")
        return 0
    key = new_key()
    issuer = Issuer(issue_root(key, "issuer", time.time()), key, ())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, content in (("ca.key", pem), ("ca.pem", issuer.certificate.public_bytes(Encoding.PEM)),
                              ("crlnumber", b"01\n"), ("index.txt", b""),
                              ("openssl.cnf", OPENSSL_CA.format(folder=folder).encode())):  # fmt: skip
            (folder / file).write_bytes(content)
        rate = ours(folder, issuer, args.certificates, args.seconds)
        peer_rate = by_openssl(folder, issuer, args.seconds)
        (folder / "store.sqlite").unlink()
        took, again, peer_took, size = crl(folder, issuer, args.entries)
    found: dict[str, Any] = {"ocsp_per_s": rate, "openssl_ocsp_per_s": peer_rate, "crl_s": took,
                             "crl_again_s": again, "openssl_crl_s": peer_took, "crl_bytes": size}  # fmt: skip
    if args.json:
        print(json.dumps(found))
    else:
        print(f"OCSP responses per second       ours {rate:.0f}, openssl ocsp {peer_rate:.0f}, bar {BAR_OCSP:.0f}")
        print(f"CRL of {args.entries} entries, {size / 1e6:.1f} MB  ours {took:.2f} s, openssl ca {peer_took:.2f} s, "
              f"bar {BAR_CRL:.0f} s")  # fmt: skip
        print(f"the same after one revocation   ours {again * 1000:.0f} ms, bar {BAR_AGAIN * 1000:.0f} ms")
    return int(rate < BAR_OCSP or took > BAR_CRL or again > BAR_AGAIN)


if __name__ == "__main__":
    sys.exit(main())
