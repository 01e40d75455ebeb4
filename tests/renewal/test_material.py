"""Tests for the validation of new keys and chains: invalid ones are rejected, and the old ones stay in use."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from authority import Issuer, issue_leaf, issue_root, new_key
from renewal import Agent, PairError
from renewal.material import new_pair_pem, read_pair
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for


def chain_of(agent: Agent) -> str:
    return agent.credentials.file.read_text().partition("-----END PRIVATE KEY-----\n")[2]


@pytest.mark.parametrize("case", ["other-key", "nonsense", "no-chain", "other-name", "expired", "truncated"])
async def test_material_that_is_not_good_changes_nothing(lab: Lab, case: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    good, serial, now = agent.credentials.file.read_bytes(), agent.credentials.serial, agent.telemetry.clock.time()
    pem, names = good, ["www.example.com"]
    if case == "other-key":
        pem = new_pair_pem(ec.generate_private_key(ec.SECP256R1()), chain_of(agent))
    elif case == "nonsense":
        pem = b"nonsense"
    elif case == "no-chain":
        pem = good[: good.index(b"-----END CERTIFICATE-----") + 26]
    elif case == "other-name":
        names = ["far.example.com"]
    elif case == "expired":
        now += 3600
    else:
        pem = good[:-200]
    with pytest.raises(PairError):
        agent.credentials.replace(pem, names, now)
    assert agent.credentials.file.read_bytes() == good
    assert agent.credentials.serial == serial


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong-san", "expected a certificate for www.example.com, got one for wrong.example.com"),
        ("expired", "expected a certificate that is valid at"),
        ("not-yet-valid", "expected a certificate that is valid at"),
        ("no-chain", "expected the chain after the certificate"),
        ("wrong-chain", "expected a chain that leads to our trust anchor"),
        ("no-aki", "missing required extension"),
    ],
)
async def test_what_a_ca_gets_wrong_is_refused(lab: Lab, kind: str, reason: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    lab.server.telemetry.faults.switch_on("misissue", {"kind": kind})
    with pytest.raises(PairError, match=reason):
        await agent.renew()
    assert agent.credentials.serial == first
    assert lab.server.telemetry.faults.as_dict()["misissue"]["hits"] == 1
    lab.server.telemetry.faults.clear()
    assert await agent.renew() != first


async def test_a_chain_that_leads_elsewhere_is_refused(lab: Lab, tmp_path: Path) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    key, now = new_key(), agent.telemetry.clock.time()
    root = issue_root(key, "a stranger", now)
    leaf_key = new_key()
    leaf = issue_leaf(Issuer(root, key, (root,)), leaf_key.public_key(), ["www.example.com"], now, 60.0)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, root)).decode()
    with pytest.raises(PairError, match="leads to our trust anchor"):
        agent.credentials.replace(new_pair_pem(leaf_key, chain), ["www.example.com"], now)


PAPERS_KEY, ROOT_KEY = new_key(), new_key()
ROOT = issue_root(ROOT_KEY, "root", 1e9)
LEAF = issue_leaf(Issuer(ROOT, ROOT_KEY, ()), PAPERS_KEY.public_key(), ["www.example.com"], 1e9, 3600.0)
DER = LEAF.public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # cryptography warns about invalid serial numbers
@given(st.integers(0, len(DER) - 1), st.binary(min_size=1, max_size=4))
def test_no_damaged_certificate_breaks_the_validation(at: int, change: bytes) -> None:
    damaged = DER[:at] + change + DER[at + len(change) :]
    text = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(damaged).decode()}-----END CERTIFICATE-----\n"
    pair = new_pair_pem(PAPERS_KEY, text + ROOT.public_bytes(Encoding.PEM).decode())
    if damaged != DER:
        with pytest.raises(PairError):
            read_pair(pair, ["www.example.com"], 1e9, [ROOT])
