"""``firstbyte pki show|request|renew|revoke``: inspect and manage individual certificates of the lab's CA."""

import argparse
import asyncio
import json
import ssl
import sys
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID

from firstbyte import terminal, where
from firstbyte.where import Way
from hostfiles.layout import TRUST_ANCHOR, TSIG_KEY, lab_address
from renewal import AcmeClient, RenewalError
from renewal.dns01 import Dns01, load_key
from renewal.errors import AcmeError
from renewal.material import new_key, new_pair_pem
from runtime import InsideLab, LabError, RefusedError
from stub import AsyncStub

DIRECTORY = "https://ca.example.com/directory"
#: Primary name server of the lab's zone: the last two octets of its IPv4 address, and its port.
PRIMARY = ("20.53", 53)
#: Codes of the revocation reasons that clients may request, keyed by name (RFC 5280 section 5.3.1).
REASONS = {
    "unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5,
    "privilegeWithdrawn": 9,
}  # fmt: skip
#: ACME problem types (RFC 8555 section 6.7) that the CA returns if it refuses a name or the profile.
WRONG_INPUT = {"malformed", "rejectedIdentifier", "unsupportedIdentifier", "invalidProfile", "caa"}
#: Maximum number of names that an error message lists; if there are more, it gives only their number.
MAX_LISTED = 5


def show(args: argparse.Namespace) -> int:
    """Print a certificate's content and the CA's record of it; *args.certificate* is a serial number or a name."""
    with where.lab() as lab:
        found = lab.call("ca", "GET", f"/admin/certificates/{serial_of(lab, args.certificate)}")
    facts = described(found)
    if args.json:
        print(json.dumps({**facts, "pem": found["pem"]}, indent=2))
        return 0
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):12} {'; '.join(value) if isinstance(value, list) else value}")
    return 0


def described(record: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about a certificate that `show` prints, taken from the CA's record of the certificate."""
    leaf, *chain = x509.load_pem_x509_certificates(record["pem"].encode())
    revoked = record["revoked"]
    names = {code: name for name, code in REASONS.items()}
    return {
        "names": record["names"],
        "serial": record["serial"],
        "issuer": leaf.issuer.rfc4514_string(),
        "chain": [each.subject.rfc4514_string() for each in chain],
        "not_before": terminal.iso(record["not_before"]),
        "not_after": terminal.iso(record["not_after"]),
        "key": _key(leaf),
        "usage": _usage(leaf),
        "sha256": leaf.fingerprint(hashes.SHA256()).hex(),
        "ocsp": _access(leaf, AuthorityInformationAccessOID.OCSP),
        "crl": _crl(leaf),
        "account": record["account"] or "the CA itself",
        "logged": "yes" if record["logged"] else "no",
        "revoked": f"{terminal.iso(revoked)}, {names.get(record['reason'] or 0)}" if revoked else "no",
    }


def revoke(args: argparse.Namespace) -> int:
    """Revoke a certificate; after a key compromise, the CA revokes all certificates with the same key.

    A revoked certificate stays unchanged, except that keyCompromise replaces any other reason.
    """
    with where.lab() as lab:
        serial = serial_of(lab, args.certificate)
        body = {"reason": REASONS[args.reason]}
        answer = lab.call("ca", "POST", f"/admin/revoke/{serial}", body)
    serials: list[str] = answer["revoked"]
    reason = next((name for name, code in REASONS.items() if code == answer["reason"]), str(answer["reason"]))
    if args.json:
        print(json.dumps({"revoked": serials, "reason": reason}))
    elif not serials:
        print(f"{serial} is already revoked ({reason})")
    else:
        for each in serials:
            print(f"revoked {each} ({reason})")
    return 0


def renew(args: argparse.Namespace) -> int:
    """Make a host renew all of its certificates immediately; print the new serial numbers."""
    renewed = []
    with where.lab() as lab:
        for host in args.host:
            report = lab.call(host, "GET", "/admin/certificate")
            for names, path in [(report["names"], ""), *(([each], f"/{each}") for each in report["additional"])]:
                serial = lab.call(host, "POST", f"/admin/renew{path}", timeout=60.0)["serial"]
                renewed.append({"host": host, "names": names, "serial": serial})
    if args.json:
        print(json.dumps(renewed, indent=2))
    else:
        for each in renewed:
            print(f"{each['host']:12} {', '.join(each['names'])}\n  serial {each['serial']}")
    return 0


def request(args: argparse.Namespace) -> int:
    """Obtain a certificate for names in the lab's zones through dns-01; print its new private key and its chain.

    Raises:
        RefusedError: the CA refused a name or the profile.
        LabError: the order failed for another reason, for example because a server does not answer.
    """
    if not InsideLab.is_here():
        options = ["--key", args.key, "--profile", args.profile, *(["--json"] if args.json else [])]
        with where.outside("pki request") as lab:
            lab.require_up()
            return lab.run_lab(["pki", "request", *args.name, *options])
    key = new_key(args.key)
    try:
        chain = asyncio.run(_obtain(args.name, key, args.profile))
    except (RenewalError, OSError) as error:
        raise failure(args.name, error) from None
    pem = new_pair_pem(key, chain).decode()
    serial = f"{x509.load_pem_x509_certificate(chain.encode()).serial_number:x}"
    if args.json:
        print(json.dumps({"names": args.name, "serial": serial, "pem": pem}))
    else:
        sys.stdout.write(pem)
        print(f"serial {serial}", file=sys.stderr)
    return 0


def failure(names: list[str], error: Exception) -> LabError:
    """Return the exception to raise after an order for *names* failed; a `RefusedError` if the input is wrong."""
    listed = f"{len(names)} names" if len(names) > MAX_LISTED else ", ".join(map(repr, names))
    kind = RefusedError if isinstance(error, AcmeError) and error.kind in WRONG_INPUT else LabError
    return kind(f"no certificate for {listed}: {error}")


async def _obtain(names: list[str], key: Any, profile: str) -> str:
    stub = AsyncStub()
    account = ec.generate_private_key(ec.SECP256R1())
    client = AcmeClient(DIRECTORY, account, ssl.create_default_context(cafile=TRUST_ANCHOR), stub)
    responder = Dns01((lab_address(PRIMARY[0]), PRIMARY[1]), load_key(TSIG_KEY), stub)
    return await client.obtain(names, key, lambda _token, _answer: None, responder, profile)


def serial_of(lab: Way, text: str) -> str:
    """Return the serial number for *text*: a serial number, the beginning of one, or a name in a valid certificate.

    If *text* is a name, the most recently issued certificate is selected.

    Raises:
        RefusedError: no certificate matches, or more than one does.
    """
    issued = lab.call("ca", "GET", "/admin/certificates?all=1")["certificates"]
    named = [each["serial"] for each in issued if text in each["names"] and each["seconds_left"] > 0]
    if named:
        return str(named[-1])
    plain = text.lower().replace(":", "").lstrip("0")
    serials = [each["serial"] for each in issued if plain and each["serial"].startswith(plain)]
    if len(serials) != 1:
        found = f"{len(serials)} certificates match" if serials else "none matches"
        raise RefusedError(f"expected a serial number, or a name in a valid certificate; got {text!r}: {found}")
    return str(serials[0])


def _key(leaf: x509.Certificate) -> str:
    key: Any = leaf.public_key()
    return f"RSA {key.key_size}" if hasattr(key.public_numbers(), "n") else f"EC {key.curve.name}"


def _usage(leaf: x509.Certificate) -> list[str]:
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return [each._name for each in usages]  # noqa: SLF001 - cryptography has no public accessor for the name of an OID


def _access(leaf: x509.Certificate, method: x509.ObjectIdentifier) -> str:
    try:
        found = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return "none"
    return next((each.access_location.value for each in found if each.access_method == method), "none")


def _crl(leaf: x509.Certificate) -> str:
    try:
        (point, *_) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return "none"
    return str(point.full_name[0].value) if point.full_name else "none"
