"""Tests for ``firstbyte dns`` with a primary and a secondary in separate processes."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from firstbyte import dns
from firstbyte.cli import main
from runtime import LabDownError, RefusedError
from telemetry.call import CallError, call
from tests.nameserver.daemons import free_port
from tests.waiting import comes_true

ZONE = "$TTL 60\n@ IN SOA ns1 hm 1 60 1 600 10\n@ IN NS ns1\n@ IN NS ns2\nns1 IN A 127.0.0.1\nns2 IN A 127.0.0.1\n"


class TwoServers:
    """A lab with two name servers: ns1 is the zone's primary, ns2 its secondary."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, "token"
        (folder / "token").write_text(self.token)
        (folder / "zone").write_text(ZONE)
        port = {name: free_port() for name in ("ns1", "ns2")}
        self.admin = {name: free_port() for name in port}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}
        self._start("ns1", port["ns1"], "--zone", f"example.={folder}/zone", "--allow-transfer", "127.0.0.0/8",
                    "--also-notify", f"127.0.0.1:{port['ns2']}")  # fmt: skip
        self._start("ns2", port["ns2"], "--secondary", f"example.=127.0.0.1:{port['ns1']}")
        self.wait()

    def wait(self) -> None:
        end = time.monotonic() + 20
        while not self._healthy():
            assert time.monotonic() < end
            time.sleep(0.05)  # polls until both servers have the zone

    def restart(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        self.run(name, self.commands[name])
        self.wait()

    def _start(self, name: str, port: int, *arguments: str) -> None:
        self.commands[name] = command = [
            sys.executable, "-m", "nameserver", "--listen", f"127.0.0.1:{port}", "--token-file", f"{self.folder}/token",
            "--admin", f"127.0.0.1:{self.admin[name]}", "--state", f"{self.folder}/{name}", *arguments,
        ]  # fmt: skip
        self.run(name, command)

    def run(self, name: str, command: list[str]) -> None:
        self.processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _healthy(self) -> bool:
        try:
            return all(self.call(name, "GET", "/health")["status"] == "ok" for name in self.processes)
        except (LabDownError, RefusedError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 5.0) -> Any:
        try:
            url = f"http://127.0.0.1:{self.admin[host]}"
            return call(url, method, path, body, token=self.token, timeout=timeout)
        except CallError as error:
            raise (RefusedError if error.status else LabDownError)(f"{host}: {error.message}") from None


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoServers]:
    made = TwoServers(tmp_path_factory.mktemp("servers"))
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()


@pytest.fixture
def lab(servers: TwoServers, monkeypatch: pytest.MonkeyPatch) -> TwoServers:
    monkeypatch.setattr("firstbyte.where.lab", lambda: servers)
    both = {"ns1": "ns1.example.", "ns2": "ns2.example."}
    monkeypatch.setattr(dns, "name_servers", lambda role="nameserver": both if role == "nameserver" else {})
    return servers


def test_a_record_is_set_and_deleted_on_all_servers(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "set", "W.example", "a", "30", "192.0.2.7", "192.0.2.8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["records"] == ["w.example. 30 A 192.0.2.7", "w.example. 30 A 192.0.2.8"]
    primary, secondary = answer["servers"]
    assert (primary["server"], primary["role"], primary["after_ms"]) == ("ns1", "primary", 0.0)
    assert (secondary["server"], secondary["role"]) == ("ns2", "secondary")
    assert primary["serial"] == secondary["serial"]
    assert 0 < secondary["after_ms"] < 5000
    assert main(["dns", "set", "w.example", "TXT", "30", "a text"]) == 0
    capsys.readouterr()
    assert main(["dns", "show", "w.example."]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "w.example.\t30\tIN\tA\t192.0.2.7", "w.example.\t30\tIN\tA\t192.0.2.8", 'w.example.\t30\tIN\tTXT\t"a text"',
    ]  # fmt: skip
    assert main(["dns", "delete", "w.example"]) == 0
    assert "w.example. A deleted\nw.example. TXT deleted" in capsys.readouterr().out
    records = lab.call("ns2", "GET", "/admin/zones/example./records")
    assert not any(each["name"] == "w.example." for each in records)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("ünicode.example", r"\195\188nicode.example."),
        ("Under_Score.EXAMPLE.", "under_score.example."),
        (r"a\.b.example", r"a\046b.example."),
        (r"\065b.example", "ab.example."),
    ],
)
def test_a_name_is_found_however_it_is_written(
    lab: TwoServers, capsys: pytest.CaptureFixture[str], name: str, stored: str
) -> None:
    assert main(["dns", "set", name, "A", "30", "192.0.2.7"]) == 0
    assert capsys.readouterr().out.startswith(f"{stored} 30 A 192.0.2.7\n")
    for written in (name, stored):
        assert main(["dns", "show", written]) == 0
        assert capsys.readouterr().out == f"{stored}\t30\tIN\tA\t192.0.2.7\n"
    assert main(["dns", "delete", name]) == 0
    assert f"{stored} A deleted" in capsys.readouterr().out


def test_a_record_is_shown_as_it_is_stored(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "set", "m.example", "type15", "30", "10 mail", "10 mail.example."]) == 0
    assert capsys.readouterr().out.startswith("m.example. 30 MX 10 mail.example.\nserver")
    assert main(["dns", "delete", "m.example"]) == 0


def test_the_zones_and_their_servers_are_shown(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["servers"]) == {"ns1", "ns2"}
    assert main(["dns", "show"]) == 0
    assert "secondary of 127.0.0.1" in capsys.readouterr().out


def test_a_zone_is_read_from_its_file_again(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "set", "w.example", "A", "30", "192.0.2.7"]) == 0
    assert main(["dns", "zone", "reload", "example"]) == 0
    assert main(["dns", "show", "w.example"]) == 2
    assert "there is no record at w.example. in example." in capsys.readouterr().err


def test_a_zone_is_added_to_its_servers_and_kept(
    lab: TwoServers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sub.zone"
    file.write_text("$TTL 60\n@ SOA ns1.example. hm 1 60 1 600 10\n@ NS ns1.example.\n@ NS ns2.example.\nw A 192.0.2\n")
    assert main(["dns", "zone", "add", "sub.example", str(file)]) == 2
    assert f"{file}:5: expected an IPv4 address, got '192.0.2'" in capsys.readouterr().err
    file.write_text(file.read_text().replace("192.0.2\n", "192.0.2.1\n"))
    assert main(["dns", "zone", "add", "sub.example", str(file)]) == 0
    out = capsys.readouterr().out
    assert (
        "example. does not delegate it; firstbyte dns set sub.example. NS 300 ns1.example. ns2.example. --zone example."
        in out
    )
    assert re.search(r"^ns2 +1  secondary, after", out, re.MULTILINE)
    assert main(["dns", "zone", "add", "sub.example", str(file)]) == 2
    assert "expected a new zone, but sub.example. is served by ns1, ns2" in capsys.readouterr().err
    assert main(["dns", "set", "sub.example", "NS", "60", "ns1.example.", "ns2.example.", "--zone", "example"]) == 0
    assert lab.call("ns2", "GET", "/admin/zones/example./records?name=sub")[0]["type"] == "NS"
    assert main(["dns", "set", "v.sub.example", "A", "30", "192.0.2.2"]) == 0
    for name in ("ns1", "ns2"):
        lab.restart(name)
        end = time.monotonic() + 20
        while not (rows := lab.call(name, "GET", "/admin/zones/sub.example./records?name=v")):
            assert time.monotonic() < end
            time.sleep(0.05)  # poll until the secondary has queried its primary
        assert [row["rdata"] for row in rows] == [["192.0.2.2"]]


def test_the_latest_queries_are_shown(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "set", "w.example", "A", "30", "192.0.2.9"]) == 0
    capsys.readouterr()

    def logged(limit: int) -> list[dict[str, Any]]:
        assert main(["dns", "log", "--limit", str(limit), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    # Queries from earlier tests, such as repeated NOTIFY messages, may arrive in between.
    change = {("ns2", "example.", "NOTIFY"), ("ns1", "example.", "IXFR")}
    assert comes_true(lambda: change <= {(row["server"], row["qname"], row["qtype"]) for row in logged(100)}, 20)
    times = [row["time"] for row in logged(100)]
    assert times == sorted(times)
    assert len(logged(2)) == 2


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["set", "w.example", "A", "30", "x"], 2, "expected an IPv4 address, got 'x'"),
        (["set", "w.example.org", "A", "30", "192.0.2.7"], 2, "expected a name in one of the zones example."),
        (["set", "a..example", "A", "30", "192.0.2.7"], 2, "expected labels of 1 to 63 bytes"),
        (["set", "w.example", "NOSUCH", "30", "x"], 2, "expected a record type"),
        (["set", "w.example", "A", "-1", "x"], 2, "expected seconds from 0"),
        (["delete", "nosuch.example"], 2, "there is no record at nosuch.example."),
        (["delete", "example"], 2, "expected a type, because example. is the apex"),
        (["zone", "reload", "exmple"], 2, "did you mean 'example.'?"),
        (["log", "ns3"], 2, "ns3"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    lab: TwoServers, capsys: pytest.CaptureFixture[str], words: list[str], code: int, error: str
) -> None:
    assert main(["dns", *words]) == code
    err = capsys.readouterr().err
    assert error in err
    assert len(err.splitlines()) == 1


def test_the_timers_of_a_zone_are_set_on_all_servers(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "set", "example.", "SOA", "60", "ns1 hostmaster 1 50 25 3600 7", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    serial = answer["servers"][0]["serial"]
    assert answer["records"] == [f"example. 60 SOA ns1.example. hostmaster.example. {serial} 50 25 3600 7"]
    assert {server["serial"] for server in answer["servers"]} == {serial}


def test_a_secondary_that_does_not_follow_is_exit_code_1(lab: TwoServers, capsys: pytest.CaptureFixture[str]) -> None:
    lab.processes["ns2"].kill()
    lab.processes["ns2"].wait()
    assert main(["dns", "set", "w.example", "A", "30", "192.0.2.7", "--wait", "0.2"]) == 1
    out, err = capsys.readouterr()
    assert "not within 0.2 s" in out
    assert "ns2 does not have serial" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MX", "30", "10", "mail"], "expected MX U16 NAME, got 1 word: 10; quote the data of one record: '10 mail'"),
        (["A", "30", "192.0.2.1", "x"], "expected an IPv4 address, got 'x'"),
        (["MX", "30", "10"], "expected MX U16 NAME, got 1 word: 10"),
        (["SOA", "30", "10"], "expected any type but SOA: its serial is counted here"),
    ],
    ids=["several-words", "several-records", "one-word", "soa"],
)
def test_a_refused_record_says_how_to_write_it(
    lab: TwoServers, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dns", "set", "w.example", *words]) == 2
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_a_name_without_a_dot_does_not_change_the_root_zone() -> None:
    zones = dns.Zones({"root-a": [{"zone": "."}], "ns1": [{"zone": "example."}]}, {})
    with pytest.raises(RefusedError, match=r"expected a name in one of the zones \., example\., or t9\. with a final"):
        dns._zone_to_change(zones, "t9", None)
    assert dns._zone_to_change(zones, "t9.", None) == "."
    assert dns._zone_to_change(zones, "t9.example", "example.") == "example."
