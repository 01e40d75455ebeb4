"""Tests for the policy of both servers: access, cookies, identity and rate limit; also with dig, kdig and drill."""

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.tsigkeyring
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nameserver.server
import resolver.server
from dnsmessage import Name
from dnsmessage.keyfile import parse_keys
from nameserver.access import Access
from serving import Settings
from serving.cookies import server_cookie
from telemetry import Telemetry
from tests import judges
from tests.nameserver.daemons import KEY
from tests.nameserver.daemons import SECRET as SHARED

SECRET, CLIENT = bytes(range(16)), b"\1\2\3\4\5\6\7\x08"
NAMED = Settings(identity="ns7.example.com", version="firstbyte 1", cookie_secret=SECRET)
STRICT = Settings(require_cookies=True, cookie_secret=SECRET)
ZONE = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n" + "".join(
    f'big IN TXT "{i:03d} {"x" * 115}"\n' for i in range(9)
)
Server = nameserver.server.Server | resolver.server.Server
KINDS = ("nameserver", "resolver")


def make(kind: str, folder: Path, settings: Settings, access: Access | None = None) -> Server:
    """Return a server that has an answer for localhost."""
    if kind == "resolver":
        hints = {Name.from_text("a.root."): "127.0.1.9"}
        return resolver.server.Server(Telemetry(kind), hints, policy=settings, now=lambda: 0.0)
    (folder / "zone").write_text(ZONE.replace("@ IN NS", "@ IN A 127.0.0.1\n@ IN NS"))
    return nameserver.server.Server(Telemetry(kind), {"localhost.": folder / "zone"}, access, settings)


def reply_to(server: Server, wire: bytes, client: str = "127.0.0.1", transport="udp") -> bytes | None:
    reply = server.policy.guard(server.handle)(wire, (client, 1), transport)
    assert reply is None or isinstance(reply, (bytes, bytearray))
    return reply if reply is None else bytes(reply)


def ask(server: Server, qname: str = "localhost.", qtype: str = "A", client: str = "127.0.0.1", **options: Any) -> Any:
    transport = options.pop("transport", "udp")
    query = dns.message.make_query(qname, qtype, **{"use_edns": 0, **options})
    reply = reply_to(server, query.to_wire(), client, transport)
    return None if reply is None else dns.message.from_wire(reply)


def cookie(server: bytes = b"") -> list[dns.edns.Option]:
    return [dns.edns.CookieOption(CLIENT, server)]


def options(message: dns.message.Message | None) -> dict[int, Any]:
    assert message is not None
    return {int(option.otype): option for option in message.options}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_without_settings_a_server_says_nothing_about_itself(kind: str, tmp_path: Path) -> None:
    server = make(kind, tmp_path, Settings())
    assert not server.policy.per_query
    nsid = ask(server, options=[dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")])
    assert options(nsid) == {}
    assert ask(server, "id.server.", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED


def test_clients_of_other_networks_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    allow = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
    server = make(kind, tmp_path, Settings(allow=allow))
    assert server.policy.per_query
    for client in ("192.0.2.255", "2001:db8::1"):
        assert ask(server, client=client).rcode() == dns.rcode.NOERROR
    for client in ("192.0.3.0", "2001:db9::1"):
        for transport in ("udp", "tcp"):
            message = ask(server, client=client, transport=transport)
            assert message.rcode() == dns.rcode.REFUSED
            assert (options(message)[15].code, options(message)[15].text) == (18, "not for this network")
    assert ask(server, client="192.0.3.0", use_edns=-1).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize(
    ("qname", "qtype", "expected"),
    [
        ("id.server.", "TXT", "ns7.example.com"),
        ("HOSTNAME.bind.", "TXT", "ns7.example.com"),
        ("version.bind.", "ANY", "firstbyte 1"),
        ("version.server.", "TXT", "firstbyte 1"),
        ("version.bind.", "A", None),
        ("authors.bind.", "TXT", None),
    ],
)
def test_questions_about_the_server(kind: str, tmp_path: Path, qname: str, qtype: str, expected: str | None) -> None:
    message = ask(make(kind, tmp_path, NAMED), qname, qtype, rdclass="CH")
    if expected is None:
        assert message.rcode() == dns.rcode.REFUSED
    else:
        assert message.answer[0].to_text() == f'{qname} 0 CH TXT "{expected}"'
        assert message.flags & dns.flags.AA


def test_options_are_added_to_every_kind_of_response(kind: str, tmp_path: Path) -> None:
    server = make(kind, tmp_path, NAMED)
    wanted = [*cookie(), dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")]
    questions: list[dict[str, Any]] = [
        {}, {"qtype": "MX"}, {"qname": "nosuch.invalid."}, {"qtype": "AXFR"}, {"use_edns": 1}, {"want_dnssec": True},
        {"qname": "id.server.", "qtype": "TXT", "rdclass": "CH"}, {"transport": "tcp"},
    ]  # fmt: skip
    for question in questions:
        found = options(ask(server, **{**question, "options": wanted}))
        assert found[3].nsid == b"ns7.example.com", question
        assert found[10].client == CLIENT
        assert len(found[10].server) == 16


def test_a_young_cookie_is_returned_and_another_is_replaced(kind: str, tmp_path: Path) -> None:
    server = make(kind, tmp_path, NAMED)
    now = server.telemetry.clock.time()
    young = server_cookie(CLIENT, "127.0.0.1", SECRET, now - 60)
    assert options(ask(server, options=cookie(young)))[10].server == young
    for other in (server_cookie(CLIENT, "127.0.0.1", SECRET, now - 2000), young[:8] + bytes(8), b"12345678"):
        replaced = options(ask(server, options=cookie(other)))[10].server
        assert replaced != other
        assert options(ask(server, options=cookie(replaced)))[10].server == replaced


def test_badcookie_only_over_udp_and_only_to_clients_with_cookies(kind: str, tmp_path: Path) -> None:
    server = make(kind, tmp_path, STRICT)
    first = ask(server, options=cookie())
    assert (first.rcode(), first.answer) == (dns.rcode.BADCOOKIE, [])
    good = cookie(options(first)[10].server)
    for arguments in ({"options": good}, {}, {"use_edns": -1}, {"options": cookie(), "transport": "tcp"}):
        assert ask(server, **arguments).rcode() == dns.rcode.NOERROR
    assert ask(server, client="127.0.0.2", options=good).rcode() == dns.rcode.BADCOOKIE


@pytest.mark.parametrize("size", [0, 7, 9, 15, 41])
def test_a_malformed_cookie_is_formerr(kind: str, tmp_path: Path, size: int) -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes(size))
    query = dns.message.make_query("localhost.", "A", use_edns=0, options=[option])
    reply = reply_to(make(kind, tmp_path, NAMED), query.to_wire())
    assert reply is not None
    assert reply[3] & 0xF == dns.rcode.FORMERR


def test_an_answer_that_the_options_do_not_fit_in_is_truncated(tmp_path: Path) -> None:
    server = make("nameserver", tmp_path, NAMED)
    whole = ask(server, "big.localhost.", "TXT", payload=1232)
    assert not whole.flags & dns.flags.TC
    cut = ask(server, "big.localhost.", "TXT", payload=1232, options=cookie())
    assert cut.flags & dns.flags.TC
    assert (cut.answer, len(options(cut)[10].server)) == ([], 16)


def test_equal_responses_to_one_network_are_limited(kind: str, tmp_path: Path) -> None:
    server = make(kind, tmp_path, Settings(rate=2, slip=2, cookie_secret=SECRET))
    server.policy._now = lambda: 0.0

    def outcome(message: dns.message.Message | None) -> str:
        return "drop" if message is None else "truncated" if message.flags & dns.flags.TC else "sent"

    assert [outcome(ask(server)) for _ in range(6)] == ["sent", "sent", "drop", "truncated", "drop", "truncated"]
    assert [outcome(ask(server, f"n{i}.invalid.")) for i in range(3)] == ["sent", "sent", "drop"], "NXDOMAIN or REFUSED"
    assert outcome(ask(server, qtype="MX")) == "sent", "another kind of response"
    assert outcome(ask(server, transport="tcp")) == "sent"
    proof = server_cookie(CLIENT, "127.0.0.1", SECRET, server.telemetry.clock.time())
    assert outcome(ask(server, options=cookie(proof))) == "sent", "the address is no forgery"
    name = f"firstbyte_{kind}_policy_total"
    assert f'{name}{{action="dropped"}} 3' in server.telemetry.metrics.render()


def test_a_truncated_response_to_a_signed_query_is_signed(tmp_path: Path) -> None:
    server = make("nameserver", tmp_path, Settings(rate=1, slip=1), Access(parse_keys(KEY)))
    server.policy._now = lambda: 0.0
    keyring = dns.tsigkeyring.from_text({"transfer.": ("hmac-sha256", SHARED)})
    sizes = []
    for ident in (7, 8):
        query = dns.message.make_query("localhost.", "A", use_edns=0, id=ident)
        query.use_tsig(keyring, "transfer.")
        wire = reply_to(server, query.to_wire())
        assert wire is not None
        reply = dns.message.from_wire(wire, keyring=keyring, request_mac=query.mac)  # raises if the signature is wrong
        assert (reply.had_tsig, reply.id, reply.edns) == (True, ident, 0)
        sizes.append((len(reply.answer), bool(reply.flags & dns.flags.TC)))
    assert sizes == [(1, False), (0, True)]


@given(st.binary(max_size=60))
def test_no_query_breaks_the_policy(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    strict = Settings(require_cookies=True, identity="x", allow=(ipaddress.ip_network("127.0.0.0/8"),), rate=1)
    server = make("nameserver", tmp_path_factory.getbasetemp(), strict)
    start = dns.message.make_query("localhost.", "A", use_edns=0).to_wire()
    for wire in (tail, start[:12] + tail, start[:-2] + tail, b"\0\0\0\0\0\1" + tail):
        reply_to(server, wire)


# --- independent programs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["dig", "+nsid", "@127.0.0.1", "localhost"], '("ns7.example.com")'),
        (["dig", "+cookie=0102030405060708", "@127.0.0.1", "localhost"], "(good)"),
        (["dig", "+short", "@127.0.0.1", "id.server", "CH", "TXT"], '"ns7.example.com"'),
        (["kdig", "+nsid", "@127.0.0.1", "localhost"], "ns7.example.com"),
        (["kdig", "+cookie", "@127.0.0.1", "localhost"], "status: NOERROR"),
        (["drill", "@127.0.0.1", "version.bind", "CH", "TXT"], '"firstbyte 1"'),
    ],
    ids=["dig-nsid", "dig-cookie", "dig-chaos", "kdig-nsid", "kdig-badcookie", "drill-chaos"],
)
async def test_other_programs_understand_the_answers(
    kind: str, tmp_path: Path, command: list[str], expected: str
) -> None:
    program = judges.command(command[0])[0]
    settings = Settings(identity=NAMED.identity, version=NAMED.version, require_cookies=True)
    listener = await make(kind, tmp_path, settings).start(("127.0.0.1", 0))
    try:
        child = await asyncio.create_subprocess_exec(
            program, "-p", str(listener.address[1]), *command[1:],
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(child.communicate(), 10)
    finally:
        await listener.close()
    assert expected in out.decode(), "after BADCOOKIE, dig and kdig repeat the query with the server's cookie"
