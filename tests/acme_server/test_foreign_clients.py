"""Tests of the ACME server with lego (Go) and uacme (C, GnuTLS): certificates are obtained by http-01 and revoked.

The clients run in a mount namespace in which ``/etc/hosts`` contains the CA's name and the system's trusted roots are
those of the test's CA, since neither client has options for both.
"""

import asyncio
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests import judges
from tests.acme_server.conftest import Lab

#: Files that each client sees with other content.
HOSTS, ROOTS = "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"
NAME = "www.example.com"
#: Script for ``uacme --hook``, which writes the key authorization of http-01 to the test's web root.
HOOK = """#!/bin/sh
[ "$1 $2" = "begin http-01" ] && printf %s "$5" > {webroot}/"$4"
[ "$1" != begin ] || [ "$2" = http-01 ]
"""


def namespaces() -> list[str]:
    """Return the command that runs a script in a mount namespace; skip the test if namespaces are not permitted."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not permit mount namespaces")
    return command


async def client(lab: Lab, *command: str) -> str:
    """Run an ACME client that resolves the CA's name and trusts the test's CA; return its output."""
    hosts = lab.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost ca.example.com\n")
    mounts = f"mount --bind {hosts} {HOSTS} && mount --bind {lab.trust} {ROOTS}"
    process = await asyncio.create_subprocess_exec(
        *namespaces(), "sh", "-c", f"{mounts} && exec {shlex.join(command)}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(lab.folder)},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


def accepted(lab: Lab, file: Path) -> str:
    """Assert that *file* contains a leaf for `NAME` with its chain; return the leaf's serial number."""
    leaf, issuing, *_ = x509.load_pem_x509_certificates(file.read_bytes())
    leaf.verify_directly_issued_by(issuing)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    serial = f"{leaf.serial_number:x}"
    stored = lab.server.store.certificate(serial)
    assert stored is not None
    assert stored.revoked is None
    return serial


def revoked(lab: Lab, serial: str) -> bool:
    stored = lab.server.store.certificate(serial)
    return stored is not None and stored.revoked is not None


async def test_lego_obtains_renews_and_revokes(lab: Lab) -> None:
    judges.require("lego")
    (lab.webroot / ".well-known").mkdir()
    (lab.webroot / ".well-known" / "acme-challenge").symlink_to(lab.webroot)
    common = ["lego", "--server", lab.directory, "--path", str(lab.folder / "lego"), "--email", "ops@example.com",
              "--accept-tos", "--domains", NAME, "--http", "--http.webroot", str(lab.webroot)]  # fmt: skip
    chain = lab.folder / "lego" / "certificates" / f"{NAME}.crt"
    await client(lab, *common, "run")
    first = accepted(lab, chain)
    await client(lab, *common, "renew", "--days", "1000", "--no-random-sleep")
    second = accepted(lab, chain)
    assert first != second
    await client(lab, *common, "revoke")
    assert [revoked(lab, first), revoked(lab, second)] == [False, True]


async def test_uacme_obtains_and_revokes(lab: Lab) -> None:
    judges.require("uacme")
    hook = lab.folder / "hook.sh"
    hook.write_text(HOOK.format(webroot=shlex.quote(str(lab.webroot))))
    hook.chmod(0o700)
    common = ["uacme", "--acme-url", lab.directory, "--confdir", str(lab.folder / "uacme"), "--yes", "--type", "EC"]
    chain = lab.folder / "uacme" / NAME / "cert.pem"
    await client(lab, *common, "new", "ops@example.com")
    await client(lab, *common, "--hook", str(hook), "issue", NAME)
    serial = accepted(lab, chain)
    await client(lab, *common, "revoke", str(chain))
    assert revoked(lab, serial)
