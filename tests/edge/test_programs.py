"""Tests of a running edge with independent clients and scanners: curl, OpenSSL, GnuTLS, Node, h2load, slowhttptest.

Edge and origin run in separate processes.  `tests/judges.py` lists the programs and their packages; a test is skipped
if its program is not installed.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import judges
from tests.peers import NAME, Papers, papers

__all__ = ["papers"]

#: Settings with short time-outs, for tests with deliberately slow clients.
HASTY = "[timeouts]\nhead = 1.0\nbody = 1.0\nsend = 1.0\nrate_window = 1.0\nlinger = 0.2\nidle = 1.0\n"
SLOW_CLIENTS = 30
#: Options of testssl: protocols, cipher categories, Heartbleed.  Each other check takes five seconds or more.
TESTSSL = ("-p", "-s", "-H")


@dataclass(frozen=True)
class Site:
    """Two edges in front of one origin, on loopback: one with default settings, one with short time-outs."""

    https: int
    http: int
    #: HTTP port of the edge with short time-outs.
    hasty: int
    #: Admin port of the edge with short time-outs, which serves its metrics.
    admin: int
    trust: Path
    #: Process of testssl; it runs in the background because it takes the longest. None if not installed.
    testssl: subprocess.Popen[str] | None
    #: File with the findings of testssl.
    findings: Path

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.https}"


@contextlib.contextmanager
def running(*argv: str, listeners: int = 1) -> Iterator[tuple[int, ...]]:
    """Run ``python -m ARGV``; yield the ports of its listeners in the order of its output, then its process ID."""
    process = subprocess.Popen(
        [sys.executable, "-m", *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(listeners)]
        yield *(int(line.split()[2].rpartition(":")[2]) for line in lines), process.pid
    finally:
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.fixture(scope="module")
def site(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    pair, settings, findings = str(papers.pair(NAME)), folder / "hasty.toml", folder / "findings.json"
    settings.write_text(HASTY)
    here, any_port = ("--cert", pair, "--key", pair), "127.0.0.1:0"
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        origin, _ = start(running("origin", "--name", "test", "--kind", "catalog", "--plain", any_port))
        upstream = ("--upstream", f"/=http://127.0.0.1:{origin}")
        http, https, _ = start(running("edge", *here, "--http", any_port, "--https", any_port, *upstream, listeners=2))
        patience = ("--settings", str(settings), "--admin", any_port, "--token-file", str(settings))
        admin, hasty, _ = start(running("edge", *patience, "--http", any_port, *upstream, listeners=2))
        scan = None
        if judges.find("testssl"):
            options = ["--quiet", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1", *TESTSSL]
            target = f"https://{NAME}:{https}/"
            command = judges.command("testssl", *options, "--jsonfile", str(findings), target)
            scan = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            stack.callback(scan.communicate)
        yield Site(https, http, hasty, admin, papers.trust, scan, findings)


def ask(program: str, *arguments: str, text: str = "", code: int = 0, **environment: str) -> str:
    """Run an independent program (a judge); return its standard output.

    Standard input contains *text* and stays open, because the edge treats a half-closed connection as disconnected.
    """
    reading, writing = os.pipe()
    try:
        os.write(writing, text.encode())
        done = subprocess.run(
            judges.command(program, *arguments), stdin=reading, capture_output=True, text=True, timeout=30, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def colourless(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- curl -------------------------------------------------------------------------------------------------------------

CURL = {
    "http/1.0": (["--http1.0", "{url}/bytes/9"], "1.1 200 9"),
    "http/1.1": (["--http1.1", "{url}/bytes/9"], "1.1 200 9"),
    "http/2": (["--http2", "{url}/bytes/9"], "2 200 9"),
    "upgrade-to-h2c-is-ignored": (["--http2", "{plain}/bytes/9"], "1.1 200 9"),
    "no-alpn": (["--no-alpn", "{url}/bytes/9"], "1.1 200 9"),
    "tls-1.2": (["--tls-max", "1.2", "{url}/bytes/9"], "2 200 9"),
    "tls-1.3": (["--tlsv1.3", "{url}/bytes/9"], "2 200 9"),
    "head": (["--head", "{url}/bytes/9"], "2 200 0"),
    "range": (["--range", "1-3", "{url}/bytes/9"], "2 206 3"),
    "ranges": (["--range", "0-0,-1", "{url}/bytes/9"], "2 206 "),
    "large": (["{url}/bytes/10000000"], "2 200 10000000"),
    "large-http/1.1": (["--http1.1", "{url}/bytes/10000000"], "1.1 200 10000000"),
    "compressed": (["--compressed", "{url}/bytes/9"], "2 200 9"),
    "expect-100": (["--http1.1", "-H", "Expect: 100-continue", "-d", "@{body}", "{url}{sink}"], "1.1 200 "),
    "expect-100-http/2": (["-H", "Expect: 100-continue", "-d", "@{body}", "{url}{sink}"], "2 200 "),
    "chunked": (["--http1.1", "-H", "Transfer-Encoding: chunked", "-d", "@{body}", "{url}{sink}"], "1.1 200 "),
    "upload": (["-T", "{body}", "-X", "POST", "{url}{sink}"], "2 200 "),
    "path-as-is": (["--path-as-is", "{url}/../../etc/passwd"], "2 400 "),
    "request-target": (["--http1.1", "--request-target", "http://www.example.com/bytes/9", "{url}/x"], "1.1 200 9"),
    "options": (["--http1.1", "--request-target", "*", "-X", "OPTIONS", "{url}"], "1.1 200 0"),
    "two-hosts": (["--http1.1", "-H", "Host: a", "-H", "host: b", "{url}/bytes/9"], "1.1 200 9"),
    "trace-max-forwards": (["--http1.1", "-X", "TRACE", "-H", "Max-Forwards: 0", "{url}/bytes/9"], "1.1 200 "),
    "haproxy-header-is-refused": (["--haproxy-protocol", "{plain}/bytes/9"], "1.1 400 "),
}  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), CURL.values(), ids=CURL)
def test_curl(site: Site, tmp_path: Path, options: Sequence[str], expected: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(200_000))
    places = {"url": site.url, "plain": f"http://127.0.0.1:{site.http}", "body": body, "sink": "/slow-read/10000000"}
    there = ["--cacert", str(site.trust), "--resolve", f"{NAME}:{site.https}:127.0.0.1"]
    report = ["-o", os.devnull, "-w", "%{http_version} %{http_code} %{size_download}"]
    words = [word.format(**places) for word in options]
    assert ask("curl", "-sS", "--max-time", "10", *there, *report, *words).startswith(expected)


def test_curl_reuses_one_connection_for_many_requests(site: Site) -> None:
    for version, parallel in (("--http1.1", ()), ("--http2", ("--parallel",))):
        options = ["-sS", version, *parallel, "--cacert", str(site.trust), "-w", "%{http_code} %{num_connects}\n"]
        options += ["--resolve", f"{NAME}:{site.https}:127.0.0.1"]
        printed = ask("curl", *options, *["-o", os.devnull, f"{site.url}/bytes/9"] * 10).split("\n")[:-1]
        assert [line.split()[0] for line in printed] == ["200"] * 10
        assert sum(int(line.split()[1]) for line in printed) == 1


# --- other TLS libraries ----------------------------------------------------------------------------------------------

# The test CA issues certificates only for names below example.com, which cannot be resolved on the test host.
HERE = ("--sni-hostname", NAME, "--verify-hostname", NAME, "127.0.0.1")
REQUEST = "GET /bytes/3 HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        ("NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLS1.3"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305", "CHACHA20-POLY1305"),
        ("NORMAL:-GROUP-ALL:+GROUP-SECP384R1:-VERS-ALL:+VERS-TLS1.3", "ECDHE-SECP384R1"),
    ],
)
def test_gnutls(site: Site, priority: str, expected: str) -> None:
    options = ["--x509cafile", str(site.trust), "--priority", priority, "-p", str(site.https), "--alpn", "http/1.1"]
    printed = ask("gnutls-cli", *options, *HERE, text=REQUEST)
    assert "The certificate is trusted" in printed
    assert f"{expected})" in printed or f"({expected}" in printed or f"-({expected})" in printed
    assert "HTTP/1.1 200 OK" in printed


def test_gnutls_resumes_a_session(site: Site) -> None:
    options = ["--x509cafile", str(site.trust), "--resume", "-p", str(site.https), "--alpn", "http/1.1"]
    printed = ask("gnutls-cli", *options, *HERE, text=REQUEST)
    assert "This is a resumed session" in printed


CBC_ONLY = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-AES-128-GCM:-AES-256-GCM:-CHACHA20-POLY1305:-AES-128-CCM:-AES-256-CCM"


@pytest.mark.parametrize(
    "priority", [pytest.param("NORMAL:-VERS-ALL:+VERS-TLS1.1", id="tls-1.1"), pytest.param(CBC_ONLY, id="cbc-only")]
)
def test_gnutls_is_refused_with_an_alert(site: Site, priority: str) -> None:
    options = ["--x509cafile", str(site.trust), "--priority", priority, "-p", str(site.https)]
    ask("gnutls-cli", *options, *HERE, text=REQUEST, code=1)


@pytest.mark.parametrize(("options", "expected"), [
    (["-tls1_3"], ["New, TLSv1.3", "ALPN protocol: http/1.1"]),
    (["-tls1_2"], ["New, TLSv1.2", "Secure Renegotiation IS supported"]),
    (["-groups", "X25519"], ["X25519"]),
], ids=["tls-1.3", "tls-1.2", "x25519"])  # fmt: skip
def test_openssl(site: Site, options: Sequence[str], expected: Sequence[str]) -> None:
    there = ["-connect", f"127.0.0.1:{site.https}", "-servername", NAME, "-verify_hostname", NAME, "-alpn", "http/1.1"]
    printed = ask("openssl", "s_client", *there, "-CAfile", str(site.trust), "-ign_eof", *options, text=REQUEST)
    assert "Verify return code: 0 (ok)" in printed
    assert "HTTP/1.1 200 OK" in printed
    for each in expected:
        assert each in printed


def test_node(site: Site) -> None:
    script = str(Path(__file__).with_name("node_client.mjs"))
    printed = json.loads(ask("node", script, site.url, NODE_EXTRA_CA_CERTS=str(site.trust)))
    assert printed == {
        "fetch": [200, 200, 200, 200_000],
        "https": [[200, False], [200, True], [200, False]],
        "http2": [200] * 50,
    }


# --- load -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path"),
    [
        pytest.param(["--h1", "-n", "2000", "-c", "20"], "/bytes/100", id="http/1.1"),
        pytest.param(["--h1", "-n", "200", "-c", "5", "-m", "10"], "/bytes/100", id="http/1.1-pipelined"),
        pytest.param(["-n", "2000", "-c", "10", "-m", "50"], "/bytes/100", id="http/2"),
        pytest.param(["-n", "8", "-c", "1", "-w", "16", "-W", "16"], "/bytes/10000000", id="http/2-small-windows"),
    ],
)
def test_h2load_loses_no_request(site: Site, options: Sequence[str], path: str) -> None:
    count = options[options.index("-n") + 1]
    printed = ask("h2load", *options, f"https://127.0.0.1:{site.https}{path}")
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in printed


def test_ten_reloads_of_settings_and_certificate_lose_no_request(site: Site, papers: Papers, tmp_path: Path) -> None:
    settings, pair = tmp_path / "edge.toml", tmp_path / "live.pem"
    pairs = [papers.pair(NAME).read_bytes() for _ in range(2)]
    pair.write_bytes(pairs[0])
    route = '[[route]]\nprefix = "/"\ntargets = ["http://127.0.0.1:{}"]\npool = {{per_target = {}}}\n'
    settings.write_text(route.format(site.http, 8))
    argv = ("--settings", str(settings), "--cert", str(pair), "--key", str(pair))
    with running("edge", "--https", "127.0.0.1:0", *argv) as (https, pid):
        options = ["--h1", "-n", "4000", "-c", "10", "--rps", "200", f"https://127.0.0.1:{https}/bytes/100"]
        command = judges.command("h2load", *options)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            for number in range(10):
                time.sleep(0.15)  # requests continue between two reloads
                settings.write_text(route.format(site.http, 9 + number))
                fresh = pair.with_suffix(".new")
                fresh.write_bytes(pairs[number % 2])
                fresh.replace(pair)
                assert load.poll() is None, "the load lasts as long as the reloads"
                os.kill(pid, signal.SIGHUP)
            printed = load.communicate(timeout=30)[0]
    assert "4000 succeeded, 0 failed, 0 errored, 0 timeout" in printed


def test_slow_clients_are_cut_off_and_take_no_one_elses_place(site: Site) -> None:
    judges.require("slowhttptest")
    modes = {"-H": "/", "-B": "/", "-R": "/", "-X": "/bytes/10000000"}
    common = ["-c", str(SLOW_CLIENTS), "-r", "100", "-l", "4", "-i", "1", "-p", "2", "-w", "10", "-y", "20", "-n", "1"]
    with contextlib.ExitStack() as stack:
        attacks = {}
        for mode, path in modes.items():
            command = judges.command("slowhttptest", mode, *common, "-u", f"http://127.0.0.1:{site.hasty}{path}")
            attacks[mode] = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        printed = {mode: colourless(attack.communicate(timeout=30)[0]) for mode, attack in attacks.items()}
    for mode in modes:
        assert re.search(r"service available:\s+YES", printed[mode])
        assert not re.search(r"service available:\s+NO", printed[mode])
    for mode in ("-H", "-B", "-R"):
        assert "No open connections left" in printed[mode]
    # slowhttptest notices a reset only after it has read its buffer, so check slow readers in the metrics of the edge.
    with urllib.request.urlopen(f"http://127.0.0.1:{site.admin}/metrics") as answer:
        metrics = answer.read().decode()
    assert f'status="truncated"}} {SLOW_CLIENTS}\n' in metrics
    assert f'status="408"}} {2 * SLOW_CLIENTS}\n' in metrics


# --- scanners ---------------------------------------------------------------------------------------------------------


def test_sslscan(site: Site) -> None:
    report = ask("sslscan", "--xml=-", f"--sni-name={NAME}", f"127.0.0.1:{site.https}")
    printed = ET.fromstring(report)  # noqa: S314 - trusted input: the XML report of sslscan
    offered = {each.get("version") for each in printed.iter("protocol") if each.get("enabled") == "1"}
    assert offered == {"1.2", "1.3"}
    ciphers = {str(each.get("cipher")) for each in printed.iter("cipher")}
    assert len(ciphers) >= 5
    assert all(re.match(r"TLS_|ECDHE-", each) and re.search("GCM|CHACHA20", each) for each in ciphers)
    assert {each.get("vulnerable") for each in printed.iter("heartbleed")} == {"0"}
    assert [each.get("supported") for each in printed.iter("renegotiation")] == ["0"]


def test_testssl_finds_no_weakness(site: Site) -> None:
    judges.require("testssl")
    assert site.testssl is not None
    output, _ = site.testssl.communicate(timeout=60)
    findings = json.loads(site.findings.read_text())
    assert {each["id"]: each["finding"] for each in findings if each["id"] == "TLS1_3"}, output
    assert sum(each["severity"] == "OK" for each in findings) >= 10
    assert [each for each in findings if each["severity"] in {"LOW", "MEDIUM", "HIGH", "CRITICAL"}] == []
