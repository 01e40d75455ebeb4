"""Programs that are not ours measure the same thing, and come to the same figure."""

import re

import pytest

from tests.system.conftest import Shell

pytestmark = pytest.mark.system

TRUST = "/srv/trust/root.pem"
EDGE = "198.19.20.10:443"
#: A busy machine only ever adds: the quickest of several looks stands for what a request costs.
LOOKS = 4
#: Seconds of one look of `openssl s_time`.
SECONDS = 2


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_openssl_s_time_opens_connections_at_the_pace_of_our_phases(shell: Shell, version: str) -> None:
    flag = f"-tls{version.replace('.', '_')}"
    # Its own clock has whole seconds: the shell's takes the time, program start included (about 10 ms of two seconds).
    script = (
        f"a=$(date +%s%N); openssl s_time -connect {EDGE} -new {flag} -time {SECONDS} -www /whoami -CAfile {TRUST} -verify 3;"
        " b=$(date +%s%N); echo took $((b - a))"
    )
    each = []
    for _ in range(LOOKS):
        answer = shell.on("lab", "sh", "-c", script)
        match = re.search(r"(\d+) connections in \d+ real seconds.*took (\d+)", answer.out, re.DOTALL)
        assert match, answer.out + answer.err
        each.append(int(match[2]) / 1e6 / int(match[1]))
    theirs = min(each)
    body = {"url": "https://www.example.com/whoami", "tls": version, "warm": True, "resume": False}
    ours = []
    for _ in range(LOOKS):
        phases = {p["name"]: p["measured_ms"] for p in shell.lab.call("client", "POST", "/admin/trace", body, timeout=30.0)["warm"]["phases"]}  # fmt: skip
        ours.append(sum(phases[name] for name in ("connect", "tls", "request", "first_byte", "body")))
    # Theirs is a whole turn of its loop, setting up and tearing down included: some 4 ms more than the phases on the wire.
    assert theirs == pytest.approx(min(ours), rel=0.1)


def test_ss_counts_the_sockets_that_our_metrics_count(shell: Shell) -> None:
    for _ in range(3):
        shell.lab.call(
            "client", "POST", "/admin/trace", {"url": "https://www.example.com/", "warm": False}, timeout=30.0
        )
    script = "ss -tanH state time-wait | wc -l; grep ^TCP: /proc/net/sockstat"
    lines = shell.on("client", "sh", "-c", script).lines
    theirs = int(lines[0])
    kernel = int(lines[1].split()[lines[1].split().index("tw") + 1])
    metrics = shell.on("client", "python", "-m", "telemetry.call", "GET", "/metrics").out
    match = re.search(r'^firstbyte_sockets\{state="tw"\} ([0-9.]+)', metrics, re.MULTILINE)
    assert match is not None
    assert theirs >= 3
    assert theirs == kernel
    # Asking for the metrics leaves one more behind, and one may have come to its end meanwhile.
    assert float(match[1]) == pytest.approx(theirs, abs=2)
