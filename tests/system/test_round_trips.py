"""Tests that a request costs a whole number of round trips, by the slope of its latency and in a capture."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import judges
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

#: Round-trip times from the clients' region to the near and the far edge, in milliseconds (lab/etc/links.toml).
NEAR, FAR = 20.0, 120.0
#: Number of traces per link; the fastest one is used, because other programs can only slow a request down.
REPEATS = 5


def warm(shell: Shell, url: str, **options: Any) -> dict[str, Any]:
    """Trace *url*; return its warm request: cached name and warm upstream pool at the edge, but a new connection."""
    found = shell.lab.call("client", "POST", "/admin/trace", {"url": url, **options}, timeout=60.0)["warm"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("scheme", "tls", "resume", "trips"),
    [
        ("http", None, True, 2),
        ("https", "1.3", False, 3),
        ("https", "1.2", False, 4),
        ("https", "1.3", True, 3),
        ("https", "1.2", True, 3),
    ],
    ids=["plain", "tls-1.3", "tls-1.2", "tls-1.3-resumed", "tls-1.2-resumed"],
)
def test_the_slope_of_the_time_to_first_byte(
    shell: Shell, scheme: str, tls: str | None, resume: bool, trips: int
) -> None:
    quickest = {}
    for host, rtt in (("www", NEAR), ("far", FAR)):
        traces = [warm(shell, f"{scheme}://{host}.example.com/whoami", tls=tls, resume=resume) for _ in range(REPEATS)]
        quickest[rtt] = min(trace["ttfb_ms"] for trace in traces)
        counted = {sum(phase["round_trips"] for phase in trace["phases"][:-2]) for trace in traces}
        assert counted == {trips}
        assert {trace["ttfb_predicted_ms"] for trace in traces} == {trips * rtt}
    slope = (quickest[FAR] - quickest[NEAR]) / (FAR - NEAR)
    assert slope == pytest.approx(trips, abs=0.1), quickest


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_tshark_decrypts_the_capture_and_counts_the_same_round_trips(shell: Shell, tmp_path: Path, tls: str) -> None:
    judges.require("tshark")
    pcap, keys = tmp_path / "far.pcap", tmp_path / "far.keys"
    arguments = ("https://far.example.com/bytes/50000", "--tls", tls, "--cold", "--packets", "--json")
    answer = shell.firstbyte("trace", *arguments, "--pcap", str(pcap), "--keylog", str(keys))
    assert answer.code == 0, answer.err
    cold = json.loads(answer.out)["cold"]

    assert tshark(pcap, keys, "http.request", "http.request.uri") == [["/bytes/50000"]]
    assert tshark(pcap, keys, "http.response", "http.response.code", "data.len") == [["200", "50000"]]

    rows = tshark(pcap, keys, "tcp", "frame.time_epoch", "ip.src", "tcp.len", "tcp.flags.syn", "http.response.code")
    trips, waiting, client = 0, False, rows[0][1]
    for _, source, length, syn, status in rows:
        if int(length) or syn in {"1", "True"}:
            if source == client:
                waiting = True
            elif waiting:
                trips, waiting = trips + 1, False
        if status:
            break
    ours = {phase["name"]: phase["round_trips"] for phase in cold["phases"]}
    expected = ours["connect"] + ours["tls"] + ours["first_byte"]
    assert trips == expected == cold["packets"]["round_trips"]


def test_tcp_states_derived_from_segments_agree_with_the_kernel(shell: Shell) -> None:
    # Use the far link, so that the kernel's state is read within one round trip after the call that changes it.
    found = shell.lab.call(
        "client", "POST", "/admin/trace", {"url": "https://far.example.com/", "packets": True}, timeout=60.0
    )
    for kind in ("cold", "warm"):
        packets = found[kind]["packets"]
        assert packets["dropped"] == 0
        assert {check["kernel"] for check in packets["kernel"]} >= {"ESTABLISHED", "FIN-WAIT-1", "TIME-WAIT"}
        assert [check for check in packets["kernel"] if not check["agrees"]] == []
        client = [each["state"] for each in packets["states"] if each["host"] == "client"]
        assert (client[:2], client[-1]) == (["SYN-SENT", "ESTABLISHED"], "TIME-WAIT")
        assert all(row["tcp"]["checksum_ok"] for row in packets["packets"] if "tcp" in row and row["arrived_ms"])
        arrived = [row["ip"] for row in packets["packets"] if row["arrived_ms"]]
        assert {ip["ttl_sent"] - ip["ttl_arrived"] for ip in arrived} == {2}


def test_captures_and_key_logs_are_also_written_inside_the_lab(shell: Shell) -> None:
    command = (
        "firstbyte trace https://www.example.com/ --cold --pcap /tmp/t.pcap --keylog /tmp/t.keys >/dev/null && "
        "head -c 4 /tmp/t.pcap | od -An -tx1 && grep -c TRAFFIC_SECRET_0 /tmp/t.keys; rm -f /tmp/t.*"
    )
    answer = shell.on("lab", "sh", "-c", command)
    magic, secrets = answer.lines
    assert magic.split() == ["4d", "3c", "b2", "a1"], answer.err
    assert int(secrets) == 2


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("https://nowhere.example.com/", 1, "nowhere.example.com"),
        ("http://resolver.example.com:81/", 1, "Connection refused"),
        ("https://198.19.20.10/", 1, "certificate"),
        ("gopher://www.example.com/", 2, "expected a URL like"),
    ],
    ids=["name", "refused", "certificate", "scheme"],
)
def test_a_url_that_fails_gets_one_clear_line(shell: Shell, url: str, code: int, said: str) -> None:
    answer = shell.firstbyte("trace", url)
    assert answer.code == code, answer.err
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def tshark(pcap: Path, keys: Path, only: str, *fields: str) -> list[list[str]]:
    """Return *fields* of the packets that match the display filter *only*, decrypted with the key log."""
    command = [*judges.command("tshark"), "-r", str(pcap), "-o", f"tls.keylog_file:{keys}", "-Y", only, "-T", "fields"]
    done = subprocess.run(
        [*command, *(f"-e{field}" for field in fields)], check=True, capture_output=True, text=True, timeout=60
    )
    return [line.split("\t") for line in done.stdout.splitlines()]
