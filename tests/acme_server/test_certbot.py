"""Tests of the ACME server with certbot, an independent client: certificates are obtained, renewed and revoked."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from cryptography import x509

from telemetry import Request
from tests.acme_server.conftest import SECRET, Lab

#: Python program that runs certbot with ca.example.com resolved to 127.0.0.1.
RUN = """
import socket, sys
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: real("127.0.0.1" if host == "ca.example.com" else host, *a, **k)
from certbot.main import main
sys.exit(main(sys.argv[1:]))
"""
#: Python program for certbot's ``--manual-auth-hook``, which writes the key authorization to the test's web root.
HOOK = """
import os, pathlib
pathlib.Path({folder!r}, os.environ["CERTBOT_TOKEN"]).write_text(os.environ["CERTBOT_VALIDATION"])
"""


async def certbot(lab: Lab, folder: Path, *arguments: str) -> str:
    """Run certbot against the test's CA; return its output."""
    hook = folder / "hook.py"
    hook.write_text(HOOK.format(folder=str(lab.webroot)))
    places = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", str(folder / name))]
    command = [*arguments, *places, "--non-interactive", "--server", lab.directory]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, *command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"REQUESTS_CA_BUNDLE": str(lab.trust), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_certbot_obtains_renews_and_revokes(lab: Lab, tmp_path: Path) -> None:
    hook = ["--manual", "--preferred-challenges", "http", "--manual-auth-hook", f"{sys.executable} {tmp_path}/hook.py"]
    names = ["-d", "www.example.com", "-d", "far.example.com"]
    account = ["--agree-tos", "--register-unsafely-without-email"]
    await certbot(lab, tmp_path, "certonly", *hook, *names, *account)
    live = tmp_path / "config" / "live" / "www.example.com"
    serials = []
    for force in ([], ["--force-renewal"]):
        if force:
            await certbot(lab, tmp_path, "renew", *force, "--no-random-sleep-on-renew")
        leaf, issuing = x509.load_pem_x509_certificates((live / "fullchain.pem").read_bytes())
        leaf.verify_directly_issued_by(issuing)
        serials.append(f"{leaf.serial_number:x}")
    assert len(set(serials)) == 2
    await certbot(lab, tmp_path, "revoke", "--cert-path", str(live / "cert.pem"), "--no-delete-after-revoke")
    revoked = [lab.server.store.certificate(serial) for serial in serials]
    assert [each is not None and each.revoked is not None for each in revoked] == [False, True]
    (known,) = {each.account for each in revoked if each is not None}
    assert known is not None


async def test_certbot_validates_a_wildcard_by_updating_the_zone(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("certbot_dns_rfc2136")
    host, port = lab.stub.servers[0]
    credentials = tmp_path / "rfc2136.ini"
    credentials.write_text(
        f"dns_rfc2136_server = {host}\ndns_rfc2136_port = {port}\ndns_rfc2136_name = writer.\n"
        f"dns_rfc2136_secret = {SECRET}\ndns_rfc2136_algorithm = HMAC-SHA256\n"
    )
    credentials.chmod(0o600)
    plugin = ["--dns-rfc2136", "--dns-rfc2136-credentials", str(credentials), "--dns-rfc2136-propagation-seconds", "0"]
    names = ["-d", "*.example.com", "-d", "example.com"]
    await certbot(lab, tmp_path, "certonly", *plugin, *names, "--agree-tos", "--register-unsafely-without-email")
    pem = (tmp_path / "config" / "live" / "example.com" / "cert.pem").read_bytes()
    alternatives = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sorted(alternatives.value.get_values_for_type(x509.DNSName)) == ["*.example.com", "example.com"]


async def test_certbot_follows_a_recall_by_renewal_information(lab: Lab, tmp_path: Path) -> None:
    hook = ["--manual", "--preferred-challenges", "http", "--manual-auth-hook", f"{sys.executable} {tmp_path}/hook.py"]
    lab.server.leaves.lifetime = 30 * 86400.0  # certbot's own rule renews this certificate after twenty days
    account = ["--agree-tos", "--register-unsafely-without-email"]
    await certbot(lab, tmp_path, "certonly", *hook, "-d", "www.example.com", *account)
    file = tmp_path / "config" / "live" / "www.example.com" / "cert.pem"
    serial = f"{x509.load_pem_x509_certificate(file.read_bytes()).serial_number:x}"
    body = json.dumps({"serials": [serial], "in_s": 0, "spread_s": 1}).encode()
    lab.server.recalls._begin(Request("POST", "/admin/recall", body=body))
    await asyncio.sleep(1.1)  # certbot renews once the window, of one second, has passed
    await certbot(lab, tmp_path, "renew", "--no-random-sleep-on-renew")
    assert f"{x509.load_pem_x509_certificate(file.read_bytes()).serial_number:x}" != serial
    (row,) = lab.server.recalls._show()["recalls"]
    assert (row["selected"], row["replaced"]) == (1, 1)
