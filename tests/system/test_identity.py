"""Tests in which openssl and curl verify the certificate chains that the CA issued and the edges present."""

import re
from pathlib import Path

import pytest

from tests import judges
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

TRUST = "/srv/trust/root.pem"


@pytest.mark.parametrize(
    "name", ["www.example.com", "rsa.example.com", "far.example.com", "news.example.com", "ca.example.com"]
)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_verifies_the_chain_and_the_name(shell: Shell, name: str, version: str) -> None:
    command = (
        f"openssl s_client -connect {name}:443 -servername {name} -CAfile {TRUST} "
        f"-verify_return_error -verify_hostname {name} {version} -brief </dev/null"
    )
    answer = shell.on("lab", "sh", "-c", command)
    assert answer.code == 0, answer.err
    assert "Verification: OK" in answer.err
    assert f"Verified peername: {name}" in answer.err
    assert ("TLSv1.3" if version == "-tls1_3" else "TLSv1.2") in answer.err


def test_the_chain_passes_openssls_strict_checks_of_rfc_5280(shell: Shell) -> None:
    command = (
        f"openssl s_client -connect www.example.com:443 -servername www.example.com -CAfile {TRUST} "
        "-showcerts </dev/null 2>/dev/null"
        ' | awk \'/BEGIN/{n++} n{print > "/tmp/c" n ".pem"}\'; '
        f"openssl verify -x509_strict -purpose sslserver -CAfile {TRUST} -untrusted /tmp/c2.pem /tmp/c1.pem"
    )
    answer = shell.on("lab", "sh", "-c", command)
    assert answer.out.strip() == "/tmp/c1.pem: OK", answer.err


def test_openssl_downloads_the_revocation_list_that_the_certificate_names(shell: Shell) -> None:
    command = (
        f"openssl s_client -connect www.example.com:443 -servername www.example.com -CAfile {TRUST} "
        "-showcerts </dev/null 2>/dev/null"
        ' | awk \'/BEGIN/{n++} n{print > "/tmp/r" n ".pem"}\'; '
        f"openssl verify -crl_check -crl_download -CAfile {TRUST} -untrusted /tmp/r2.pem /tmp/r1.pem"
    )
    answer = shell.on("lab", "sh", "-c", command)
    assert answer.out.strip() == "/tmp/r1.pem: OK", answer.err


def test_openssl_refuses_the_edge_under_another_name(shell: Shell) -> None:
    command = (
        f"openssl s_client -connect www.example.com:443 -CAfile {TRUST} "
        "-verify_return_error -verify_hostname far.example.com -brief </dev/null"
    )
    answer = shell.on("lab", "sh", "-c", command)
    assert answer.code != 0
    assert "hostname mismatch" in answer.err.lower()


def test_an_origin_rejects_a_client_without_a_certificate(shell: Shell) -> None:
    command = (
        "printf 'GET /whoami HTTP/1.1\\r\\nHost: catalog-1.example.com\\r\\n\\r\\n' | "
        f"openssl s_client -quiet -connect catalog-1.example.com:8443 -CAfile {TRUST} -ign_eof"
    )
    answer = shell.on("lab", "sh", "-c", command)
    # Only the missing response can be checked, because asyncio closes the connection without the alert of RFC 8446
    # section 4.4.2.4.
    assert answer.code != 0
    assert answer.out == ""


def test_curl_on_this_machine_trusts_the_published_edge(shell: Shell, root_pem: str) -> None:
    resolve = ("--resolve", "www.example.com:8443:127.0.0.1")
    files = Path(root_pem).parent
    url = "https://www.example.com:8443/whoami"
    answer = shell.here(*judges.command("curl", "-sS", "--cacert", root_pem, *resolve, url, files=files))
    assert answer.code == 0, answer.err
    assert '"client"' in answer.out
    without = shell.here(*judges.command("curl", "-sS", *resolve, url))
    assert without.code == 60, "curl's exit code for an untrusted chain"


def test_curl_downloads_a_large_body_through_the_edge(shell: Shell) -> None:
    down = shell.on(
        "lab",
        "curl",
        "-sS",
        "--cacert",
        TRUST,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download}",
        "https://www.example.com/bytes/3000000",
    )
    assert down.out == "200 3000000", down.err


def test_curls_phases_agree_with_our_own(shell: Shell) -> None:
    form = "%{time_namelookup} %{time_connect} %{time_appconnect} %{time_starttransfer}"
    shell.on("lab", "dig", "+short", "www.example.com")
    once = ["curl", "-sS", "--cacert", TRUST, "-o", "/dev/null", "-w", form, "https://www.example.com/"]
    theirs, ours = [], []
    for _ in range(5):  # use the minimum of each phase, because other programs can only slow a request down
        name, connect, tls, _first = map(float, shell.on("lab", *once).out.split())
        theirs.append({"connect": 1000 * (connect - name), "tls": 1000 * (tls - connect)})
        body = {"url": "https://www.example.com/", "warm": True}
        phases = shell.lab.call("client", "POST", "/admin/trace", body)["warm"]["phases"]
        ours.append({each["name"]: each["measured_ms"] for each in phases})
    for phase, room in (("connect", 3), ("tls", 8)):
        assert min(t[phase] for t in theirs) == pytest.approx(min(o[phase] for o in ours), abs=room)


def test_the_ca_loses_nothing_when_it_is_killed(shell: Shell) -> None:
    before = {c["serial"] for c in shell.lab.call("ca", "GET", "/admin/certificates")["certificates"]}
    shell.lab.kill("ca")
    shell.lab.start("ca")
    shell.lab.up(["tools"], build=False)
    after = {c["serial"] for c in shell.lab.call("ca", "GET", "/admin/certificates")["certificates"]}
    assert before
    assert before <= after
    renewed = shell.lab.call("edge", "POST", "/admin/renew", timeout=30.0)["serial"]
    assert re.fullmatch(r"[0-9a-f]{30,40}", renewed)


def test_the_ca_is_restored_from_a_backup(shell: Shell, tmp_path: Path) -> None:
    file = str(tmp_path / "ca.tar")
    assert shell.firstbyte("pki", "backup", file).code == 0
    restored = shell.firstbyte("pki", "restore", "--discard-newer", file)
    assert restored.code == 0, restored.err
    shell.lab.up(["tools"], build=False)  # returns when the CA is healthy
    assert shell.firstbyte("pki", "verify-log").code == 0


def test_keys_of_the_ca_are_encrypted_and_it_cannot_see_the_root_key(shell: Shell) -> None:
    heads = shell.on("ca", "sh", "-c", "head -qn 1 /srv/ca/*.key.pem; ls /srv/root | wc -l").lines
    assert heads == ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "0"]
