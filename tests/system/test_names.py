"""Tests that dig and unbound get the same results from the lab's name servers as our resolver and stub."""

import json
import re

import pytest

from tests import judges
from tests.system.conftest import Answer, Shell

pytestmark = pytest.mark.system

RESOLVER, NS1, NS2, ROOT_A = "198.19.2.53", "198.19.20.53", "198.19.30.53", "198.19.10.53"

#: Queries and expected results: (name, type, lines that `dig +short` must print, in any order).
ANSWERS = [
    ("www.example.com", "A", {"198.19.20.10"}),
    ("far.example.com", "A", {"198.19.30.10"}),
    ("rsa.example.com", "A", {"198.19.20.10"}),
    ("alias.example.com", "A", {"shop.example.com.", "www.example.com.", "198.19.20.10"}),
    ("anything.wild.example.com", "A", {"198.19.20.10"}),
    ("example.com", "NS", {"ns1.example.com.", "ns2.example.com."}),
    ("example.com", "MX", {"10 mail.example.com."}),
    ("example.com", "CAA", {'0 issue "ca.example.com"'}),
    ("news.example.com", "A", {"198.19.20.31"}),
    ("sport.news.example.com", "A", {"news.example.com.", "198.19.20.31"}),
    ("a.gtld-servers.test", "A", {"198.19.12.53"}),
]
#: Queries and expected headers: (name, type, rcode, flag that must be set).
STATUS = [
    ("www.example.com", "A", "NOERROR", "ra"),
    ("nosuch.example.com", "A", "NXDOMAIN", "ra"),
    ("deep.empty.example.com", "A", "NOERROR", "ra"),
    ("empty.example.com", "A", "NOERROR", "ra"),
    ("www.example.com", "AAAA", "NOERROR", "ra"),
    ("nosuch.nosuch", "A", "NXDOMAIN", "ra"),
]


def answers(answer: Answer) -> list[str]:
    """Return the records printed by ``dig +short``, without messages about retries."""
    return [line for line in answer.lines if not line.startswith(";")]


@pytest.mark.parametrize(("name", "qtype", "expected"), ANSWERS, ids=[f"{n}-{t}" for n, t, _ in ANSWERS])
def test_the_resolver_gives_dig_the_data_of_the_zones(shell: Shell, name: str, qtype: str, expected: set[str]) -> None:
    assert set(answers(shell.on("lab", "dig", "+short", f"@{RESOLVER}", name, qtype))) == expected


@pytest.mark.parametrize(("name", "qtype", "rcode", "flag"), STATUS, ids=[f"{n}-{t}" for n, t, _, _ in STATUS])
def test_dig_sees_the_rcode_and_flags(shell: Shell, name: str, qtype: str, rcode: str, flag: str) -> None:
    out = shell.on("lab", "dig", f"@{RESOLVER}", name, qtype).out
    assert f"status: {rcode}" in out
    match = re.search(r"flags: ([a-z ]*);", out)
    assert match is not None
    assert flag in match[1].split()


def test_a_negative_answer_carries_the_soa_with_its_minimum_as_ttl(shell: Shell) -> None:
    out = shell.on("lab", "dig", "+noall", "+authority", f"@{NS1}", "nosuch.example.com").out.split()
    assert out[0] == "example.com."
    assert out[1] == "10"
    assert out[3] == "SOA"


def test_dig_walks_from_the_labs_root_hints(shell: Shell) -> None:
    hops = shell.on("lab", "dig", "+trace", "+nodnssec", f"@{RESOLVER}", "www.example.com").out
    asked = re.findall(r"Received \d+ bytes from ([0-9.]+)#53", hops)
    assert len(asked) == 4
    assert asked[1] in {ROOT_A, "198.19.11.53"}
    assert asked[2] == "198.19.12.53"
    assert asked[3] in {NS1, NS2}
    assert "198.19.20.10" in hops


@pytest.mark.parametrize("server", [RESOLVER, NS1])
def test_tcp_gives_the_same_answer(shell: Shell, server: str) -> None:
    over = [
        answers(shell.on("lab", "dig", "+short", f"@{server}", "www.example.com", *flag)) for flag in ((), ("+tcp",))
    ]
    assert over[0] == over[1] == ["198.19.20.10"]


def test_an_answer_too_large_for_a_datagram_is_truncated_and_complete_over_tcp(shell: Shell) -> None:
    cut = shell.on("lab", "dig", "+ignore", "+notcp", f"@{RESOLVER}", "big.example.com", "TXT").out
    assert re.search(r"flags: [a-z ]*\btc\b", cut)
    whole = answers(shell.on("lab", "dig", "+short", f"@{RESOLVER}", "big.example.com", "TXT"))
    assert len(whole) == 13


def test_a_delegation_is_answered_with_a_referral_and_glue(shell: Shell) -> None:
    out = shell.on("lab", "dig", "+norec", f"@{NS1}", "www.news.example.com").out
    assert "ANSWER: 0, AUTHORITY: 1" in out
    assert re.search(r"flags: [a-z ]*\baa\b", out) is None
    assert re.search(r"^ns\.news\.example\.com\.\s+3600\s+IN\s+A\s+198\.19\.20\.54$", out, re.MULTILINE)


def test_a_name_server_refuses_names_outside_its_zones(shell: Shell) -> None:
    assert "status: REFUSED" in shell.on("lab", "dig", "+norec", f"@{NS1}", "www.example.org").out


def test_unbound_resolves_from_the_same_hints_and_agrees(shell: Shell) -> None:
    config = (
        'server:\n  use-syslog: no\n  chroot: ""\n  username: ""\n  directory: /tmp\n'
        '  interface: 127.0.0.1@5301\n  pidfile: ""\n  access-control: 127.0.0.0/8 allow\n'
        "  root-hints: /srv/zones/root.hints\n  do-ip6: no\n  qname-minimisation: yes\n  use-caps-for-id: yes\n"
        '  domain-insecure: "."\n  module-config: "iterator"\n  local-zone: "test." nodefault\n'
        "remote-control:\n  control-enable: no\n"
    )
    names = [(name, qtype) for name, qtype, _ in ANSWERS]
    questions = "; ".join(f"echo '# {n} {t}'; dig +short @127.0.0.1 -p 5301 {n} {t} | sort" for n, t in names)
    script = (
        f"printf '%s' '{config}' > /tmp/unbound.conf; PATH=$PATH:/usr/sbin; "
        "unbound -d -c /tmp/unbound.conf 2>/tmp/unbound.log & p=$!; "
        "for i in $(seq 100); do "
        "dig +tries=1 +time=5 @127.0.0.1 -p 5301 www.example.com | grep -q 'status: NOERROR' && break; "
        "sleep 0.1; done; "
        f"{questions}; kill $p; wait $p"
    )
    answer = shell.on("lab", "sh", "-c", script)
    theirs = dict[tuple[str, str], set[str]]()
    for line in answers(answer):
        if line.startswith("# "):
            _, name, qtype = line.split()
            theirs[name, qtype] = current = set[str]()
        else:
            current.add(line)
    assert theirs == {(name, qtype): expected for name, qtype, expected in ANSWERS}, answer.err


@pytest.mark.parametrize(
    ("server", "identity"),
    [(RESOLVER, "resolver.example.com"), (NS1, "ns1.example.com"), (ROOT_A, "a.root-servers.test")],
)
def test_a_server_says_who_it_is_and_makes_cookies(shell: Shell, server: str, identity: str) -> None:
    out = shell.on("lab", "dig", "+nsid", "+cookie", "+norec", f"@{server}", "www.example.com").out
    assert f'("{identity}")' in out
    assert re.search(r"COOKIE: [0-9a-f]{48} \(good\)", out)
    chaos = shell.on("lab", "dig", "+short", f"@{server}", "id.server", "CH", "TXT")
    assert answers(chaos) == [f'"{identity}"']


def test_name_servers_see_only_the_labels_that_they_need(shell: Shell) -> None:
    shell.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
    name = "private.news.example.com"
    assert "status: NXDOMAIN" in shell.on("lab", "dig", f"@{RESOLVER}", name).out
    seen = {
        server: {query["qname"] for query in shell.lab.call(server, "GET", "/admin/queries?limit=200")}
        for server in ("root-a", "root-b", "tld-com", "ns1", "ns2", "ns-news")
    }
    assert {server for server, names in seen.items() if f"{name}." in names} == {"ns-news"}
    assert "com." in seen["root-a"] | seen["root-b"]
    assert "example.com." in seen["tld-com"]
    (resolution,) = shell.lab.call("resolver", "GET", f"/admin/resolutions?qname={name}&limit=1")
    asked = {hop["server"] for hop in resolution["hops"]}
    rows = [row for row in shell.lab.call("resolver", "GET", "/admin/servers") if row["address"] in asked]
    assert [(row["mixed_case"], row["cookies"]) for row in rows] == [(True, True)] * 4


def test_delv_resolves_through_the_lab(shell: Shell) -> None:
    out = shell.on("lab", "delv", "-i", f"@{RESOLVER}", "www.example.com", "A").out
    assert re.search(r"^www\.example\.com\.\s+\d+\s+IN\s+A\s+198\.19\.20\.10$", out, re.MULTILINE)


def test_a_reader_reaches_the_resolver_through_the_published_port(shell: Shell) -> None:
    for flag in ("+notcp", "+tcp"):
        answer = shell.here(*judges.command("dig", "+short", flag, "@127.0.0.1", "-p", "5300", "www.example.com"))
        assert answers(answer) == ["198.19.20.10"], answer.err


def test_a_changed_record_travels_to_the_secondary_and_to_the_resolver_after_its_ttl(shell: Shell) -> None:
    try:
        answer = shell.firstbyte("dns", "set", "moved.example.com", "A", "1", "198.19.20.21", "--json")
        assert answer.code == 0, answer.err
        primary, secondary = json.loads(answer.out)["servers"]
        assert (primary["server"], secondary["server"]) == ("ns1", "ns2")
        assert primary["serial"] == secondary["serial"]
        for server in (NS1, NS2, RESOLVER):
            assert answers(shell.on("lab", "dig", "+short", f"@{server}", "moved.example.com")) == ["198.19.20.21"]
    finally:
        shell.firstbyte("dns", "delete", "moved.example.com")
    assert answers(shell.on("lab", "dig", "+short", f"@{NS2}", "moved.example.com")) == []
    logs = shell.firstbyte("logs", "ns2", "--tail", "50").out
    assert '"kind": "IXFR"' in logs
    assert "notify_refused" not in logs


@pytest.mark.parametrize("flag", ["+tls", "+https"])
def test_kdig_verifies_the_resolver_and_gets_a_padded_answer(shell: Shell, flag: str) -> None:
    trusted = ["+tls-ca=/srv/trust/root.pem", "+tls-hostname=resolver.example.com"]
    out = shell.on("lab", "kdig", f"@{RESOLVER}", flag, *trusted, "www.example.com").out
    assert "198.19.20.10" in out
    assert ";; Received 468 B" in out


def test_curl_finds_the_edge_over_https_only(shell: Shell) -> None:
    where = ["--cacert", "/srv/trust/root.pem", "--doh-url", "https://resolver.example.com/dns-query"]
    out = shell.on(
        "lab", "curl", "-sS", "-o", "/dev/null", "-w", "%{remote_ip}", *where, "https://www.example.com/"
    ).out
    assert "198.19.20.10" in out


@pytest.mark.parametrize("transport", ["tls", "https"])
def test_an_encrypted_trace_pays_for_two_handshakes_before_the_query(shell: Shell, transport: str) -> None:
    traced = shell.firstbyte("trace", "https://www.example.com/", "--dns", transport, "--cold", "--json").out
    names = json.loads(traced)["cold"]["phases"][0]
    assert names["detail"]["transport"] == transport
    assert names["round_trips"] == 3 + len(names["detail"]["hops"])
    assert names["predicted_ms"] >= 3 * 4 + 10 * len(names["detail"]["hops"])
    assert names["bytes_received"] > 1000  # the count includes the certificates
