"""Tests for the defences against forged replies: names in random case (0x20) and cookies (RFC 7873)."""

import contextlib

import dns.edns
import dns.message
import dns.rcode
import pytest

from dnsmessage import MismatchError, Name, RemoteError
from dnsmessage.message import PAYLOAD
from resolver.exchange import Sent, SuspectError, query
from resolver.server import Server
from resolver.servers import Known
from telemetry import Request, Telemetry
from tests.resolver.conftest import EXAMPLE, Internet
from tests.resolver.test_resolver import HINTS, ask, lines

WWW = Name.from_text("www.example.com.")
COOKIE = bytes(range(16))


def sent(*, known: Known | None = None, mixed_case: bool = True) -> Sent:
    """Return a query; with *mixed_case*, its name has at least one upper-case letter."""
    known = known or Known()
    while True:
        made = query(WWW, 1, known, edns=True, mixed_case=mixed_case)
        if not mixed_case or made.wire != made.plain:
            return made


def reply(made: Sent, cookie: bytes | None = None, *, lower: bool = False) -> bytes:
    """Return a reply to *made* with a CNAME record; *cookie* is the content of the cookie option."""
    wire = made.plain if lower else made.wire
    message = dns.message.make_response(dns.message.from_wire(wire))
    name = message.question[0].name
    message.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "target.example.com."))
    message.use_edns(
        0,
        payload=PAYLOAD,
        options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)] if cookie is not None else None,
    )
    return message.to_wire()


def test_queries_spell_the_name_at_random() -> None:
    spelled = {sent().wire[12:28] for _ in range(50)}
    assert len(spelled) > 30
    assert {each.lower() for each in spelled} == {WWW.wire[:16]}
    assert {sent(mixed_case=False).wire[12:28] for _ in range(9)} == {WWW.wire[:16]}


def test_a_reply_is_read_in_the_case_of_the_question() -> None:
    made = sent()
    received = made.read(reply(made))
    assert received.copied_case
    (record,) = received.message.answer
    assert (record.name.wire, record.rdata) == (WWW.wire, b"\6target\7example\3com\0")


@pytest.mark.parametrize("learned", [b"", COOKIE[8:]], ids=["first-query", "cookie-known"])
@pytest.mark.parametrize(
    ("option", "lower", "first", "later"),
    [
        pytest.param("ours", False, None, None, id="all-right"),
        pytest.param("none", False, None, SuspectError, id="a-known-cookie-is-missing"),
        pytest.param("echo", False, None, SuspectError, id="the-option-repeated"),
        pytest.param("other", False, MismatchError, MismatchError, id="another-clients-cookie"),
        pytest.param("short", False, MismatchError, MismatchError, id="a-server-cookie-of-7-bytes"),
        pytest.param("long", False, MismatchError, MismatchError, id="a-server-cookie-of-33-bytes"),
        pytest.param("ours", True, SuspectError, SuspectError, id="another-case"),
    ],
)
def test_a_reply_needs_case_and_cookie(
    learned: bytes, option: str, lower: bool, first: type[Exception] | None, later: type[Exception] | None
) -> None:
    known = Known(server_cookie=learned)
    made = sent(known=known)
    ours = known.client_cookie
    options = {"ours": ours + COOKIE[8:], "none": None, "other": COOKIE, "short": ours + b"x" * 7}
    options |= {"long": ours + b"x" * 33, "echo": ours}
    expected = later if learned else first
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        assert made.read(reply(made, options[option], lower=lower)).server_cookie == (
            COOKIE[8:] if option == "ours" else b""
        )
    if expected is SuspectError:
        assert made.read(reply(made, options[option], lower=lower), trusted=True).copied_case is not lower


def test_the_servers_cookie_is_returned_to_it() -> None:
    known = Known(server_cookie=COOKIE[8:])
    (option,) = dns.message.from_wire(sent(known=known).wire).options
    assert isinstance(option, dns.edns.CookieOption)
    assert (option.client, option.server) == (known.client_cookie, COOKIE[8:])


def test_no_bytes_are_read_as_a_reply_by_accident() -> None:
    made = sent()
    for size in (0, 11, 12, 20, len(made.wire)):
        with pytest.raises(RemoteError):
            made.read(made.wire[:size])


# --- against servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def server(internet: Internet) -> Server:
    return Server(Telemetry("resolver"), HINTS, port=internet.port)


@pytest.fixture
def lower_case(internet: Internet) -> Internet:
    """Make the server of example.com. repeat names in lower case."""
    honest = internet.responders[EXAMPLE]

    def lower(wire: bytes, transport: str) -> bytes:
        response = honest.respond(wire, udp=transport == "udp")
        assert response is not None
        return response.wire[:12] + response.wire[12:].replace(wire[12:29], wire[12:29].lower())

    internet.override[EXAMPLE] = lower
    return internet


def known(server: Server, field: str) -> bool:
    rows = {row["address"]: row for row in server._servers(Request("GET", "/"))}
    return bool(rows[EXAMPLE][field])


async def test_a_server_that_changes_the_case_is_asked_over_tcp_once_and_then_in_plain_case(
    server: Server, lower_case: Internet
) -> None:
    for qname in ("www.example.com.", "nobody.example.com.", "zero.example.com."):
        await ask(server, qname)
    over = [transport for address, transport in lower_case.asked if address == EXAMPLE]
    assert over == ["udp", "tcp", "udp", "udp"]
    assert not known(server, "mixed_case")
    server._flush(Request("POST", "/", body=b'{"all": true}'))
    assert known(server, "mixed_case")


async def test_one_reply_with_the_case_changed_does_not_end_mixed_case(server: Server, internet: Internet) -> None:
    honest = internet.responders[EXAMPLE]

    def forged_over_udp(wire: bytes, transport: str) -> bytes:
        response = honest.respond(wire, udp=True)
        assert response is not None
        forged = response.wire.replace(bytes([192, 0, 2, 1]), bytes([203, 0, 113, 66]))
        return forged[:12] + forged[12:29].swapcase() + forged[29:] if transport == "udp" else response.wire

    internet.override[EXAMPLE] = forged_over_udp
    assert lines(await ask(server, "www.example.com.")) == ["www.example.com. 30 IN A 192.0.2.1"]
    assert known(server, "mixed_case")


async def test_a_server_that_wants_its_cookie_gets_it(server: Server, internet: Internet) -> None:
    honest, seen = internet.responders[EXAMPLE], []

    def strict(wire: bytes, transport: str) -> bytes:
        (cookie,) = dns.message.from_wire(wire).options
        assert isinstance(cookie, dns.edns.CookieOption)
        seen.append((transport, bool(cookie.server)))
        response = honest.respond(wire, udp=True)
        assert response is not None
        message = dns.message.from_wire(response.wire)
        message.use_edns(0, options=[dns.edns.CookieOption(cookie.client, b"12345678")])
        if not cookie.server:
            message.set_rcode(dns.rcode.BADCOOKIE)
            message.answer = []
        return message.to_wire()

    internet.override[EXAMPLE] = strict
    for qname in ("www.example.com.", "zero.example.com."):
        assert len(lines(await ask(server, qname))) == 1
    assert seen == [("udp", False), ("udp", True), ("udp", True)]
    assert known(server, "cookies")
    internet.override.clear()  # simulate a new server at this address that does not support cookies
    await ask(server, "nobody.example.com.")
    await ask(server, "self.example.com.")
    assert [transport for address, transport in internet.asked if address == EXAMPLE][3:] == ["udp", "tcp", "udp"]
    assert not known(server, "cookies")
