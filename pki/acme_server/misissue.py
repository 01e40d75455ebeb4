"""Defective certificates and chains that a CA must never issue, for the fault ``misissue``.

For each defect, a correct leaf is changed in one respect and signed again.
"""

import datetime as dt

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authority import Issuer, hash_for, issue_root, new_key

#: Kinds of defects; the ``kind`` parameter of the fault selects one of them.
KINDS = (
    "wrong-san", "expired", "not-yet-valid", "no-chain", "wrong-chain", "long-chain", "no-client-auth", "no-aki",
    "short-life",
)  # fmt: skip
#: Name in the certificate if the defect is ``wrong-san``.
WRONG_NAME = "wrong.example.com"
#: Number of unrelated certificates that ``long-chain`` appends, about 9 kB in PEM.
SURPLUS = 15
#: Lifetime of a leaf with the defect ``short-life``, as a fraction of the correct lifetime.
SHORT = 0.1

Leaf = tuple[x509.Certificate, tuple[x509.Certificate, ...]]


def misissue(kind: str, leaf: x509.Certificate, issuer: Issuer, now: float) -> Leaf:
    """Return *leaf* with the defect *kind*, and the chain to deliver with it.

    Args:
        kind: one of `KINDS`.
        leaf: the correct certificate.
        issuer: the CA that issued it.
        now: time of issuance, in seconds since the epoch.
    """
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    match kind:
        case "wrong-san":
            names = x509.SubjectAlternativeName([x509.DNSName(WRONG_NAME)])
            return _again(leaf, issuer, replaced=names, subject=_common_name(WRONG_NAME)), issuer.chain
        case "expired":
            return _again(leaf, issuer, later=-life - dt.timedelta(seconds=1)), issuer.chain
        case "not-yet-valid":
            return _again(leaf, issuer, later=life), issuer.chain
        case "no-chain":
            return leaf, ()
        case "wrong-chain":
            return leaf, (_stranger("an issuer of other certificates", now),)
        case "long-chain":
            surplus = (_stranger(f"surplus certificate {n}", now) for n in range(SURPLUS))
            return leaf, (*issuer.chain, *surplus)
        case "no-client-auth":
            server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            return _again(leaf, issuer, replaced=server_only), issuer.chain
        case "no-aki":
            return _again(leaf, issuer, dropped=x509.AuthorityKeyIdentifier), issuer.chain
        case _:
            issued = dt.datetime.fromtimestamp(int(now), dt.UTC)
            ends = issued + max(dt.timedelta(seconds=1), SHORT * (leaf.not_valid_after_utc - issued))
            return _again(leaf, issuer, not_after=ends), issuer.chain


def _again(
    leaf: x509.Certificate,
    issuer: Issuer,
    *,
    subject: x509.Name | None = None,
    replaced: x509.ExtensionType | None = None,
    dropped: type[x509.ExtensionType] | None = None,
    later: dt.timedelta = dt.timedelta(),
    not_after: dt.datetime | None = None,
) -> x509.Certificate:
    """Return a copy of *leaf* with the given changes, signed by *issuer*."""
    builder = x509.CertificateBuilder(
        leaf.issuer,
        subject or leaf.subject,
        leaf.public_key(),
        leaf.serial_number,
        leaf.not_valid_before_utc + later,
        (not_after or leaf.not_valid_after_utc) + later,
    )
    for each in leaf.extensions:
        if dropped is None or not isinstance(each.value, dropped):
            value = each.value if replaced is None or each.oid != replaced.oid else replaced
            builder = builder.add_extension(value, each.critical)
    return builder.sign(issuer.key, hash_for(issuer.key))


def _stranger(common_name: str, now: float) -> x509.Certificate:
    """Return a certificate that is not part of any leaf's chain."""
    return issue_root(new_key(), common_name, now)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
