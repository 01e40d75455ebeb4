"""Tests for ``python -m encrypted`` as a process, queried by independent clients over HTTPS and TLS."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import judges
from tests.peers import Papers

NAME = "resolver.example.com"


def run(*command: str) -> str:
    judges.require(command[0])
    # `openssl s_client` also prints the server's HTTP/2 frames, which are not text, if they arrive in time.
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False, input="")
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("encrypted")
    hints = folder / "hints"
    hints.write_text(". 3600000 IN NS a.test.\na.test. 3600000 IN A 127.0.0.1\n")
    command = [sys.executable, "-m", "encrypted", "--listen", "127.0.0.1:0", "--hints", str(hints)]
    command += ["--tls", "127.0.0.1:0", "--https", "127.0.0.1:0", "--cert", str(papers.pair(NAME))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found: dict[str, str] = {}
    while len(found) < 3:
        line = process.stdout.readline()
        assert line
        if match := re.search(r"listening on 127\.0\.0\.1:(\d+) \((https|tls|udp)", line):
            found[match[2]] = match[1]
    yield found
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.mark.parametrize("flags", [["+https"], ["+https-get"], ["+tls"], ["+https", "+padding"]], ids="".join)
def test_kdig_gets_its_answer(ports: dict[str, str], papers: Papers, flags: list[str]) -> None:
    port = ports["tls" if "+tls" in flags else "https"]
    trusted = [f"+tls-ca={papers.trust}", f"+tls-hostname={NAME}"]
    out = run("kdig", "@127.0.0.1", "-p", port, *flags, *trusted, "www.localhost", "AAAA")
    assert re.search(r"^www\.localhost\.\s+10800\s+IN\s+AAAA\s+::1$", out, re.MULTILINE)
    assert ";; Received 468 B" in out


def test_curl_resolves_a_name_over_https(ports: dict[str, str], papers: Papers) -> None:
    url = f"https://{NAME}:{ports['https']}/dns-query"
    out = run("curl", "-sv", "-4", "--cacert", str(papers.trust), "--resolve", f"{NAME}:{ports['https']}:127.0.0.1",
              "--doh-url", url, "http://anything.home.arpa:9/")  # fmt: skip
    assert "DoH Host name: anything.home.arpa" in out  # printed once curl has decoded the response
    out = run("curl", "-sv", "--cacert", str(papers.trust), "--resolve", f"{NAME}:{ports['https']}:127.0.0.1", url)
    assert "HTTP/2 400" in out
    assert "expected one variable dns, got 0" in out


def test_openssl_negotiates_h2(ports: dict[str, str], papers: Papers) -> None:
    out = run("openssl", "s_client", "-connect", f"127.0.0.1:{ports['https']}", "-servername", NAME, "-alpn", "h2",
              "-CAfile", str(papers.trust), "-verify_hostname", NAME, "-verify_return_error")  # fmt: skip
    assert "ALPN protocol: h2" in out
    assert "Verify return code: 0 (ok)" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --tls or --https"),
        (["--tls", "127.0.0.1:0"], "expected --acme, --tls-dir, --trust, --cert-name"),
        (["--tls", "127.0.0.1:0", "--cert", "/dev/null"], "expected a chain and its key in PEM"),
    ],
    ids=["plain", "no-certificate", "no-pem"],
)
def test_unusable_flags_are_a_usage_error(flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRSTBYTE_ACME", "FIRSTBYTE_TLS_DIR", "FIRSTBYTE_TRUST"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "encrypted", "--listen", "127.0.0.1:0", "--hints", "hints", *flags]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_the_plain_resolver_starts_without_what_the_certificate_needs() -> None:
    code = "import sys, resolver.__main__; print(sorted({'aiohttp', 'cryptography', 'h2'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
