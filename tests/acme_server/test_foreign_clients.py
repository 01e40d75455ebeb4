"""Tests of the ACME server with lego, Caddy (Go) and uacme (C, GnuTLS), which obtain certificates with http-01.

The clients run in a mount namespace in which ``/etc/hosts`` contains the CA's name and the system's trusted roots are
those of the test's CA, since not all clients have options for both.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from tests import judges
from tests.acme_server.conftest import Lab, free_port
from tests.waiting import until

#: Files that are replaced in the client's mount namespace.
HOSTS, ROOTS = "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"
NAME = "www.example.com"
#: Script for ``uacme --hook``, which writes the key authorization of http-01 to the test's web root.
HOOK = """#!/bin/sh
[ "$1 $2" = "begin http-01" ] && printf %s "$5" > {webroot}/"$4"
[ "$1" != begin ] || [ "$2" = http-01 ]
"""
#: Settings of Caddy: certificates by http-01 from the test's CA.
CADDY = """
{{
    admin off
    email ops@example.com
    http_port {http01}
    https_port {https}
    storage file_system {lab.folder}/caddy
}}
www.example.com {{
    tls {{
        issuer acme {lab.directory} {{
            trusted_roots {lab.trust}
            disable_tlsalpn_challenge
        }}
    }}
    respond "hello"
}}
"""
#: Settings of Apache with mod_md: a certificate by http-01 from the test's CA.
APACHE = """
ServerRoot {folder}
ServerName www.example.com
PidFile {folder}/pid
ErrorLog {folder}/log
User nobody
Group nogroup
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule md_module /usr/lib/apache2/modules/mod_md.so
LogLevel md:debug
Listen 127.0.0.1:{http01}
Listen 127.0.0.1:{https}
MDStoreDir {folder}/md
MDPortMap http:{http01} https:{https}
MDCertificateAuthority {directory}
MDCACertificateFile {roots}
MDCertificateAgreement accepted
MDContactEmail ops@example.com
MDCAChallenges http-01
MDomain www.example.com
<VirtualHost *:{http01}>
    ServerName www.example.com
</VirtualHost>
<VirtualHost *:{https}>
    ServerName www.example.com
    SSLEngine on
</VirtualHost>
"""


def namespaces() -> list[str]:
    """Return the command that runs a script in a mount namespace; skip the test if namespaces are not permitted."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not permit mount namespaces")
    return command


async def start(lab: Lab, *command: str) -> asyncio.subprocess.Process:
    """Start an ACME client that resolves the CA's name and trusts the test's CA."""
    hosts = lab.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost ca.example.com\n")
    mounts = f"mount --bind {hosts} {HOSTS} && mount --bind {lab.trust} {ROOTS}"
    return await asyncio.create_subprocess_exec(
        *namespaces(), "sh", "-c", f"{mounts} && exec {shlex.join(command)}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(lab.folder)},
    )  # fmt: skip


async def client(lab: Lab, *command: str) -> str:
    """Run an ACME client until it ends; return its output."""
    process = await start(lab, *command)
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


async def presented(lab: Lab, port: int) -> str:
    """Return the serial number of the certificate for `NAME` that a server presents; "" if it is not trusted."""
    context = ssl.create_default_context(cafile=lab.trust)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
    except OSError:
        return ""
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


@contextlib.asynccontextmanager
async def web_server(lab: Lab, http01: int, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a web server that answers http-01 by itself, on port *http01*."""
    validations = lab.server.validations
    validations._ports = replace(validations._ports, http=http01)
    process = await start(lab, *command)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def serves(lab: Lab, port: int) -> None:
    """Wait until the server on *port* presents a certificate of the CA for `NAME`."""
    async with asyncio.timeout(30):
        while not (serial := await presented(lab, port)):  # noqa: ASYNC110 - polls: no event signals that the server has a certificate
            await asyncio.sleep(0.1)  # wait before the next connection
    stored = lab.server.store.certificate(serial)
    assert stored is not None
    assert list(stored.names) == [NAME]


async def test_caddy_obtains_its_certificate_and_serves_with_it(lab: Lab) -> None:
    judges.require("caddy")
    http01, https = free_port(), free_port()
    settings = lab.folder / "Caddyfile"
    settings.write_text(CADDY.format(lab=lab, http01=http01, https=https))
    async with web_server(lab, http01, "caddy", "run", "--adapter", "caddyfile", "--config", str(settings)):
        await serves(lab, https)


async def test_apache_obtains_its_certificate_and_serves_with_it_after_a_graceful_restart(lab: Lab) -> None:
    judges.require("apache2")
    if os.geteuid() != 0:
        pytest.skip("Apache has to drop root's privileges, which is not possible in a user namespace")
    http01, https = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # mod_md places orders in an unprivileged process, which needs access
        settings = folder / "apache.conf"
        settings.write_text(
            APACHE.format(directory=lab.directory, roots=ROOTS, folder=folder, http01=http01, https=https)
        )
        job = folder / "md" / "staging" / NAME / "job.json"
        async with web_server(lab, http01, "apache2", "-f", str(settings), "-D", "FOREGROUND") as process:
            await until(lambda: job.exists() and json.loads(job.read_text() or "{}").get("finished"), 30)
            assert not await presented(lab, https)
            process.send_signal(signal.SIGUSR1)
            await serves(lab, https)
