"""``python -m authority verify-log``: verify the issuance log, and compare it with the store and with TLS servers."""

import argparse
import dataclasses
import json
import socket
import ssl

from cryptography import x509

from authority.issuance_log import FILE, Audit, audit, fingerprint_of
from authority.store import Store

#: Time-out of a connection to a server, in seconds.
TIMEOUT = 5.0


def verify_log(args: argparse.Namespace) -> int:
    """Verify the log in the folder *args.ca*; return 0 if the log is intact and complete, otherwise 1.

    The log contains only certificates that this CA issued, so certificates of other CAs are reported as missing.
    """
    store = Store(args.ca / "store.sqlite")
    try:
        stored = [x509.load_pem_x509_certificate(pem.encode()) for _, pem in store.leaves_after(0)]
    finally:
        store.close()
    seen: dict[str, tuple[str, str]] = {}
    silent: dict[str, str] = {}
    for host, port in args.server:
        try:
            seen[f"{host}:{port}"] = fingerprint_of(served(host, port))
        except (OSError, ValueError) as error:
            silent[f"{host}:{port}"] = str(error)
    found = audit(args.ca / FILE, map(fingerprint_of, stored), seen.values())
    servers = {name: serial for name, (serial, _) in seen.items()}
    _print(found, servers, silent, as_json=args.json)
    return 0 if found.ok and not silent else 1


def served(host: str, port: int) -> x509.Certificate:
    """Return the unverified certificate that a TLS server presents for the server name *host*.

    Raises:
        OSError: the server cannot be reached, or the handshake fails.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def _print(found: Audit, servers: dict[str, str], silent: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        body = {"ok": found.ok and not silent, **dataclasses.asdict(found), "servers": servers, "unreachable": silent}
        print(json.dumps(body, indent=2))
        return
    print(f"{found.entries} intact entries" + ("; the last line is torn" if found.torn else ""))
    if found.damage:
        print(f"first bad entry: {found.damage}")
    for serial in found.missing:
        where = ", ".join(name for name, each in servers.items() if each == serial) or "the store"
        print(f"not in the log: {serial} ({where})")
    for serial in found.unstored:
        print(f"logged, but not stored (never handed out): {serial}")
    for name, error in silent.items():
        print(f"not reached: {name}: {error}")
