"""Tests that http-01 validation connects only to a web server of the validated name (no SSRF)."""

from collections.abc import AsyncIterator, Callable, Iterator

import dnslib
import pytest
from aiohttp import web

import serving
from acme_server import Problem
from acme_server.redirects import Ports, Target, check_address, next_target
from acme_server.validation import validate_http01
from authority import Issuer, issue_intermediate, issue_root, new_key
from stub import AsyncStub
from tests.acme_server.conftest import site

ROOT_KEY, KEY = new_key(), new_key()
ROOT = Issuer(issue_root(ROOT_KEY, "root", 1e9), ROOT_KEY, ())
ISSUER = Issuer(issue_intermediate(ROOT, KEY.public_key(), "issuing", 1e9), KEY, ())
NAME, TOKEN, EXPECTED = "www.example.com", "token", "token.thumbprint"
START = Target(tls=False, name=NAME, port=80, path="/.well-known/acme-challenge/x")


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://127.1/", "rejectedIdentifier"),
        ("http://0177.0.0.1/", "rejectedIdentifier"),
        ("http://0x7f000001/", "rejectedIdentifier"),
        ("http://%31%32%37.0.0.1/", "rejectedIdentifier"),
        ("http://169.254.169.254/latest/meta-data/", "rejectedIdentifier"),
        ("http://169.254.169.254.nip.io/", "rejectedIdentifier"),
        ("http://[::ffff:127.0.0.1]/", "rejectedIdentifier"),
        ("http://[::ffff:7f00:1]/", "rejectedIdentifier"),
        ("http://[fe80::1%25eth0]/", "rejectedIdentifier"),
        ("//[::ffff:169.254.169.254]/", "rejectedIdentifier"),
        ("http://.example.com/", "rejectedIdentifier"),
        ("http://www.example.com./", "rejectedIdentifier"),
        ("http://www.example.com%00.example.com/", "rejectedIdentifier"),
        ("http://www.example.com:22/", "unauthorized"),
        ("http://www.example.com:0/", "unauthorized"),
        ("http://www.example.com:80:80/", "unauthorized"),
        ("http://www.example.com:８０/", "unauthorized"),
        ("http://127。0。0。1/", "unauthorized"),
        ("http://127.0.0.1#@www.example.com/", "rejectedIdentifier"),
        ("http://127.0.0.1\\@www.example.com/", "unauthorized"),
        ("ftp://www.example.com/", "unauthorized"),
        ("ldap://www.example.com:80/", "unauthorized"),
        ("dict://www.example.com:80/", "unauthorized"),
        ("javascript:alert(1)", "unauthorized"),
        ("data:text/plain,token", "unauthorized"),
    ],
)
def test_a_location_that_leads_elsewhere_is_refused(location: str, kind: str) -> None:
    with pytest.raises(Problem) as refused:
        next_target(START, location, ISSUER, Ports())
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
)
def test_an_address_that_no_web_server_of_another_host_has_is_refused(address: str) -> None:
    check_address("198.19.20.10", local=False)
    with pytest.raises(Problem, match="expected the address of another host") as refused:
        check_address(address, local=False)
    assert refused.value.kind == "unauthorized"


def test_only_loopback_addresses_are_permitted_on_one_machine() -> None:
    check_address("127.0.0.1", local=True)
    with pytest.raises(Problem, match="another host"):
        check_address("169.254.169.254", local=True)


class Names:
    """A name server that returns a different address for each query, as in DNS rebinding, and then repeats the last."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked = addresses, 0

    def handle(self, wire: bytes, _client: object, _transport: str) -> bytes:
        query = dnslib.DNSRecord.parse(wire)
        reply = query.reply()
        address = self.addresses[min(self.asked, len(self.addresses) - 1)]
        reply.add_answer(dnslib.RR(query.q.qname, 1, rdata=dnslib.A(address), ttl=0))
        self.asked += 1
        return reply.pack()


class Web:
    """A web server for http-01 that records the requested paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.port = 0
        self.respond: Callable[[], web.Response] = lambda: web.Response(text=EXPECTED)

    async def handle(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        return self.respond()


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    found = Web()
    application = web.Application()
    application.router.add_get("/{path:.*}", found.handle)
    async with site(application) as port:
        found.port = port
        yield found


async def validate(server: Web, names: Names) -> None:
    listener = await serving.start(("127.0.0.1", 0), names.handle)
    try:
        stub = AsyncStub([listener.address])
        await validate_http01(stub, ISSUER, NAME, TOKEN, EXPECTED, Ports(http=server.port))
    finally:
        await listener.close()


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(server: Web) -> None:
    names = Names("127.0.0.1", "169.254.169.254")
    await validate(server, names)
    assert (names.asked, server.paths) == (1, [f"/.well-known/acme-challenge/{TOKEN}"])


async def test_a_name_that_is_rebound_between_redirects_is_checked_again(server: Web) -> None:
    names = Names("127.0.0.1", "169.254.169.254")
    server.respond = lambda: web.Response(status=302, headers={"Location": f"http://{NAME}:{server.port}/other"})
    with pytest.raises(Problem, match=r"expected the address of another host, got 169\.254\.169\.254") as refused:
        await validate(server, names)
    assert (refused.value.kind, names.asked, len(server.paths)) == ("unauthorized", 2, 1)


async def test_a_name_with_a_forbidden_address_is_never_connected_to(server: Web) -> None:
    with pytest.raises(Problem, match="expected the address of another host") as refused:
        await validate(server, Names("0.0.0.0"))
    assert (refused.value.kind, server.paths) == ("unauthorized", [])


def chain(port: int) -> Iterator[web.Response]:
    yield web.Response(status=302, headers={"Location": f"http://far.example.com:{port}/a"})
    yield web.Response(status=307, headers={"Location": "http://localhost:9900/admin/faults"})


async def test_every_redirect_of_a_chain_is_checked(server: Web) -> None:
    responses = chain(server.port)
    server.respond = lambda: next(responses)
    with pytest.raises(Problem) as refused:
        await validate(server, Names("127.0.0.1"))
    assert (refused.value.kind, len(server.paths)) == ("unauthorized", 2)
