"""Tests for ``firstbyte pki show`` and the selection of a certificate by serial number or name."""

import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Issuer, Urls, issue_leaf, issue_root, new_key
from firstbyte.certificates import described, serial_of
from runtime import RefusedError

NOW = time.time()


class ListingLab:
    """A lab whose CA lists four certificates."""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        assert (host, method) == ("ca", "GET")
        rows = [("7a01", "www.example.com", 60), ("7a02", "www.example.com", 60), ("7b03", "far.example.com", 60),
                ("7c04", "old.example.com", -1)]  # fmt: skip
        return {"certificates": [{"serial": each, "names": [name], "seconds_left": left} for each, name, left in rows]}


@pytest.mark.parametrize(
    ("text", "serial"),
    [("7a01", "7a01"), ("7b", "7b03"), ("7B:03", "7b03"), ("007c04", "7c04"), ("www.example.com", "7a02")],
    ids=["serial", "start", "as-openssl-prints-it", "leading-zeros", "newest-of-a-name"],
)
def test_a_certificate_is_selected(text: str, serial: str) -> None:
    assert serial_of(ListingLab(), text) == serial  # type: ignore[arg-type]  # the function uses only `call`


@pytest.mark.parametrize("text", ["7a", "ff", "", "old.example.com", "00"])
def test_no_certificate_is_selected_if_none_or_several_match(text: str) -> None:
    with pytest.raises(RefusedError, match="expected a serial number, or a name"):
        serial_of(ListingLab(), text)  # type: ignore[arg-type]  # the function uses only `call`


@pytest.mark.parametrize("published", [True, False])
def test_a_certificate_is_described(published: bool) -> None:
    key = new_key()
    issuer = Issuer(issue_root(key, "issuer", NOW), key, ())
    urls = Urls("http://ca/crl", "http://ca/cer", "http://ca/ocsp") if published else None
    leaf = issue_leaf(issuer, key.public_key(), ["a.example.com"], NOW, 60.0, urls=urls)
    record = {"pem": leaf.public_bytes(Encoding.PEM).decode(), "names": ["a.example.com"], "serial": "1",
              "not_before": NOW, "not_after": NOW, "account": None, "logged": True, "revoked": NOW,
              "reason": 4}  # fmt: skip
    found = described(record)
    assert (found["key"], found["usage"], found["account"]) == (
        "EC secp256r1", ["serverAuth", "clientAuth"], "the CA itself"
    )  # fmt: skip
    assert (found["ocsp"], found["crl"]) == (("http://ca/ocsp", "http://ca/crl") if published else ("none", "none"))
    assert found["revoked"].endswith(", superseded")
