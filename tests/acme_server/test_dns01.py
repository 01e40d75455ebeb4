"""Tests for dns-01: wildcard names, wrong and missing records, several name servers, several network perspectives."""

import dataclasses

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from acme_server.redirects import Ports
from acme_server.validations import Validations
from dnsmessage.keyfile import parse_keys
from nameserver import parse
from renewal import AcmeError
from renewal.dns01 import Dns01
from stub import AsyncStub
from telemetry import Telemetry
from tests.acme_server.browser import Browser, kind
from tests.acme_server.conftest import KEY, ZONE, Lab
from tests.acme_server.test_acme_server import client
from tests.renewal.conftest import agent_for
from tests.waiting import until


def responder(lab: Lab, key: str = KEY) -> Dns01:
    (tsig,) = parse_keys(key).values()
    return Dns01(lab.stub.servers[0], tsig, lab.stub)


async def obtain(lab: Lab, *names: str, dns: Dns01 | None = None) -> x509.Certificate:
    pem = await client(lab).obtain(names, ec.generate_private_key(ec.SECP256R1()), no_http, dns or responder(lab))
    return x509.load_pem_x509_certificate(pem.encode())


def no_http(_token: str, _answer: str | None) -> None:
    raise AssertionError("expected no http-01")


def records(lab: Lab) -> list[str]:
    """Return the owner names of all challenge records in the zone."""
    (zone,) = lab.names.responder.zones.values()
    return [str(each.name) for each in zone if str(each.name).startswith("_acme-challenge")]


async def test_a_wildcard_and_its_parent_are_validated_by_two_records_of_one_name(lab: Lab) -> None:
    leaf = await obtain(lab, "*.example.com", "example.com")
    alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["*.example.com", "example.com"]
    assert records(lab) == []


async def test_an_agent_renews_with_dns01(lab: Lab) -> None:
    agent = agent_for(lab, "tls", "*.example.com")
    file = lab.folder / "key"
    file.write_text(KEY)
    agent.settings = dataclasses.replace(agent.settings, dns01=(lab.stub.servers[0], file))
    first = await agent.renew()
    assert await agent.renew() != first


async def test_http01_is_not_offered_for_a_wildcard(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, _ = await browser.order("*.example.com", "www.example.com")
    shown = [(await browser.post(url, None))[1] for url in order["authorizations"]]
    assert [each["identifier"]["value"] for each in shown] == ["example.com", "www.example.com"]
    assert [each.get("wildcard") for each in shown] == [True, None]
    assert [[c["type"] for c in each["challenges"]] for each in shown] == [["dns-01"], ["http-01", "dns-01"]]
    status, body, _ = await browser.post(shown[0]["challenges"][0]["url"].replace("dns-01", "http-01"), {})
    assert (status, kind(body)) == (404, "malformed")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        pytest.param("", "unauthorized", id="no-record"),
        pytest.param("_acme-challenge.www TXT wrong", "incorrectResponse", id="wrong-record"),
        pytest.param("_acme-challenge.www CNAME t\nt TXT wrong", "incorrectResponse", id="alias-of-a-wrong-record"),
        pytest.param("_acme-challenge.www CNAME _acme-challenge.www", "dns", id="alias-of-itself"),
    ],
)
async def test_names_that_dns01_does_not_validate(lab: Lab, browser: Browser, record: str, problem: str) -> None:
    await lab.names.publish(lambda: parse("example.com.", f"{ZONE}\n{record}\n"))
    await browser.register()
    order, _ = await browser.order("www.example.com")
    url = (await browser.post(order["authorizations"][0], None))[1]["challenges"][1]["url"]
    await browser.post(url, {})
    await until(lambda: browser.stored(order["authorizations"][0]) == "invalid")
    _, shown, _ = await browser.post(order["authorizations"][0], None)
    assert [(c["type"], kind(c["error"])) for c in shown["challenges"]] == [("dns-01", problem)]


async def test_one_perspective_that_sees_another_internet_prevents_issuance(lab: Lab) -> None:
    server = lab.server
    port = lab.stub.servers[0][1]
    nowhere = AsyncStub([("127.0.0.9", 9)], timeout=0.1, attempts=1)
    server.validations = Validations(
        Telemetry("two perspectives"),
        server.orders,
        server.commits,
        [lab.stub, nowhere],
        server.issuer,
        Ports(dns=port),
        None,
    )
    with pytest.raises(AcmeError) as error:
        await obtain(lab, "www.example.com")
    assert error.value.kind == "dns"


async def test_a_key_that_the_name_server_does_not_know_fails_before_validation(lab: Lab) -> None:
    with pytest.raises(AcmeError, match=r"UPDATE of _acme-challenge.www.example.com at 127.0.0.1:\d+: .*BADKEY"):
        await obtain(lab, "www.example.com", dns=responder(lab, KEY.replace("writer", "stranger")))


async def test_a_zone_that_refuses_the_update_fails_before_validation(lab: Lab) -> None:
    dns = responder(lab)
    with pytest.raises(AcmeError, match="expected NOERROR, got REFUSED"):
        await dns._update("www.example.com", "text", delete=False)
