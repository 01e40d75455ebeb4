"""Tests for certificate selection by SNI, and for the fault ``long_chain``, which pads the chain for one name."""

import argparse
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from renewal import AcmeError, additional
from tests.acme_server.conftest import Lab
from tests.handshakes import ends
from tests.renewal.conftest import agent_for


def shown(context: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> x509.Certificate:
    """Return the certificate that a server with *context* presents to a client with SNI *name*."""
    return x509.load_der_x509_certificate(handshaken(context, trust, name)[0])


def handshaken(context: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> tuple[bytes, int]:
    """Perform a handshake in memory; return the server's leaf (DER) and the size of its first flight in bytes."""
    client, server = ends(trust, context, name)
    client.handshake()
    server.receive(client.to_send())
    server.handshake()
    flight = server.to_send()
    client.receive(flight)
    client.handshake()
    return client.object.getpeercert(binary_form=True) or b"", len(flight)


async def test_a_additional_certificate_is_for_who_asks_for_its_name(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    context, trust = agent.credentials.server_context(), lab.context()
    other = agent.additional("far.example.com", "rsa-2048")
    # Without the additional certificate, the server presents its first certificate.
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(context, trust, "far.example.com")
    await other.obtain()
    assert isinstance(shown(context, trust, "far.example.com").public_key(), rsa.RSAPublicKey)
    assert isinstance(shown(context, trust, "www.example.com").public_key(), ec.EllipticCurvePublicKey)
    assert agent.describe()["additional"] == ["far.example.com"]
    assert other.credentials.file.parent == agent.settings.tls_dir / "far.example.com"


async def test_a_additional_certificate_renews_and_alarms_on_its_own(lab: Lab) -> None:
    agent = agent_for(lab)
    other = agent.additional("far.example.com", "rsa-2048")
    await agent.obtain()
    await other.obtain()
    first = agent.credentials.serial
    before = other.credentials.serial
    await other.renew()
    assert (agent.credentials.serial, other.credentials.serial != before) == (first, True)
    lab.server.telemetry.faults.switch_on("acme_503", {})
    for _ in range(2):
        with pytest.raises(AcmeError, match="503"):
            await other.renew()
    checks = agent.telemetry.health.as_dict()["checks"]
    assert (checks["renewal"]["ok"], checks["renewal far.example.com"]["ok"]) == (True, False)
    assert (agent.describe()["alarms"], len(other.describe()["alarms"])) == ([], 1)


async def test_a_long_chain_goes_to_whom_it_is_meant_for_and_is_believed_all_the_same(lab: Lab) -> None:
    agent = agent_for(lab, "tls", "www.example.com", "far.example.com")
    await agent.obtain()
    context, trust = agent.credentials.server_context(), lab.context()
    _, usual = handshaken(context, trust, "www.example.com")
    agent.telemetry.faults.switch_on("long_chain", {"bytes": 20_000, "sni": "far.example.com"})
    assert handshaken(context, trust, "www.example.com")[1] == pytest.approx(usual, abs=4)
    assert 20_000 < handshaken(context, trust, "far.example.com")[1] - usual < 20_500
    agent.telemetry.faults.clear()
    assert handshaken(context, trust, "far.example.com")[1] == pytest.approx(usual, abs=4)


@pytest.mark.parametrize("text", ["", "rsa.example.com", "=rsa-2048", "rsa.example.com=dsa"])
def test_a_additional_certificate_needs_a_name_and_a_kind_of_key(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=KIND"):
        additional(text)
