"""Tests for ``--tls``: both servers as processes, queried by independent clients over TLS and TCP."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import judges
from tests.peers import Papers

NAME = "resolver.example.com"
ZONE = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\nwww IN A 192.0.2.7\nbig IN TXT {}\n"


def run(*command: str) -> str:
    judges.require(command[0])
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, input="").stdout


class Process:
    """A name server process with TLS; its certificate and key are in the file `pem`."""

    def __init__(self, folder: Path, pem: Path) -> None:
        zone = folder / "zone"
        zone.write_text(ZONE.format(" ".join(f'"{i:0200}"' for i in range(20))))
        command = [sys.executable, "-m", "nameserver", "--listen", "127.0.0.1:0", "--zone", f"example.={zone}"]
        self.pem = pem
        self.process = subprocess.Popen(
            [*command, "--tls", "127.0.0.1:0", "--cert", str(pem)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ports: dict[str, str] = {}
        while len(ports) < 2:
            line = self.process.stdout.readline()
            assert line
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+) \((tls|udp)", line):
                ports[found[2]] = found[1]
        self.plain, self.tls = ports["udp"], ports["tls"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("tls")
    pem = folder / "pair.pem"
    pem.write_bytes(papers.pair(NAME).read_bytes())
    made = Process(folder, pem)
    yield made
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(10) == 0
    assert made.process.stdout is not None
    made.process.stdout.close()


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["+tls"], 1),
        (["+tls", "+keepopen", "www.example", "www.example"], 3),
        (["+tls", "+padding"], 1),
        (["+tcp", "+keepopen", "www.example"], 2),
        (["+tls", "+nocookie", "+dnssec"], 1),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_kdig_gets_its_answers(server: Process, flags: list[str], lines: int) -> None:
    port = server.tls if "+tls" in flags else server.plain
    out = run("kdig", "@127.0.0.1", "-p", port, "+short", *flags, "www.example")
    assert out.split() == ["192.0.2.7"] * lines


def test_kdig_verifies_the_name_and_the_chain(server: Process, papers: Papers) -> None:
    strict = ["kdig", "@127.0.0.1", "-p", server.tls, f"+tls-ca={papers.trust}", "+short", "www.example"]
    assert run(*strict, f"+tls-hostname={NAME}").split() == ["192.0.2.7"]
    assert "192.0.2.7" not in run(*strict, "+tls-hostname=other.example.com")


def test_a_padded_query_gets_a_padded_reply(server: Process) -> None:
    out = run("kdig", "@127.0.0.1", "-p", server.tls, "+tls", "+padding", "www.example")
    assert ";; Received 468 B" in out


def test_drill_and_delv_read_a_long_answer_over_tcp(server: Process) -> None:
    for command in (
        ["drill", "-t", "-p", server.plain, "@127.0.0.1", "big.example", "TXT"],
        ["delv", "@127.0.0.1", "-p", server.plain, "+tcp", "-i", "big.example", "TXT"],
    ):
        assert f'"{19:0200}"' in run(*command)


def test_openssl_sees_the_chain_the_protocol_and_a_new_certificate(server: Process, papers: Papers) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.tls}", "-servername", NAME, "-alpn", "dot"]
    command += ["-CAfile", str(papers.trust), "-verify_hostname", NAME, "-verify_return_error"]
    out = run(*command)
    assert "Verify return code: 0 (ok)" in out
    assert "ALPN protocol: dot" in out
    server.pem.write_bytes(b"no certificate")  # invalid, so the server must keep its certificate
    first = papers.serial
    server.pem.write_bytes(papers.pair(NAME).read_bytes())
    assert papers.serial != first
    deadline = time.monotonic() + 10
    while (serial := served(command)) != papers.serial and time.monotonic() < deadline:
        time.sleep(0.2)  # time for the server to check its files
    assert serial == papers.serial


def served(command: list[str]) -> str:
    """Return the serial number of the certificate that ``openssl s_client`` received."""
    show = ["openssl", "x509", "-noout", "-serial"]
    shown = subprocess.run(show, input=run(*command), capture_output=True, text=True, check=True)
    return shown.stdout.strip().lower().removeprefix("serial=").lstrip("0")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tls", "127.0.0.1:0"], "expected --tls HOST:PORT and --cert FILE together"),
        (["--cert", "cert.pem"], "expected --tls HOST:PORT and --cert FILE together"),
        (["--tls", "127.0.0.1:0", "--cert", "/dev/null"], "expected a chain and its key in PEM"),
        (["--tls", "[::g]:853", "--cert", "x"], "expected an IPv6 address in brackets"),
    ],
    ids=["no-cert", "no-address", "no-pem", "bad-ipv6"],
)
@pytest.mark.parametrize("module", ["nameserver", "resolver"])
def test_unusable_flags_are_a_usage_error(module: str, flags: list[str], message: str, tmp_path: Path) -> None:
    files = ["--zone", "example.=zone"] if module == "nameserver" else ["--hints", "hints"]
    command = [sys.executable, "-m", module, "--listen", "127.0.0.1:0", *files, *flags]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path)
    assert ran.returncode == 2
    assert message in ran.stderr
