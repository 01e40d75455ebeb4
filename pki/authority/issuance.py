"""Issue root, intermediate and leaf certificates (RFC 5280 section 4, CA/Browser Forum Baseline Requirements 7.1).

These functions do not read clocks or files: the time and the signing keys are arguments.
"""

import datetime as dt
import functools
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from authority import der
from authority.errors import AuthorityError, BadCSRError, WeakKeyError
from authority.public_keys import check_public_key

#: Default offset between issuance and notBefore, in seconds, for clients whose clock is slow.
BACKDATE = 60.0
#: Lifetime of root certificates in seconds, longer than any lab runs.
ROOT_LIFETIME = 10 * 365 * 86400.0
#: Lifetime of intermediate certificates in seconds, longer than any lab runs.
INTERMEDIATE_LIFETIME = 3 * 365 * 86400.0
#: Exceptions that cryptography raises for malformed requests and certificates; not all derive from ValueError.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
#: Domains that an intermediate may certify (name constraints, RFC 5280 section 4.2.1.10).  A leaked intermediate key
#: cannot be used for other domains.
PERMITTED = ("example.com", "lab.test", "localhost.test")
#: Name constraints that forbid certificates for IP addresses (BR 7.1.2.5.2): the constraints on DNS names do not apply
#: to other name types.
EXCLUDED = [x509.IPAddress(ipaddress.ip_network(each)) for each in ("0.0.0.0/0", "::/0")]
#: The algorithms ecdsa-with-SHA256 and ecdsa-with-SHA384 (RFC 5758 section 3.2), as AlgorithmIdentifiers in DER.
_ECDSA_SHA256, _ECDSA_SHA384 = (bytes.fromhex(f"300a06082a8648ce3d0403{last}") for last in ("02", "03"))
#: Throwaway key that signs certificates for lint before the real issuer signs them; no one trusts this key.
_WORTHLESS = ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)  # without slots, because `cached_property` needs an instance dictionary
class Issuer:
    """A CA certificate, its private key, and the chain that servers send after a leaf of this CA."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes
    #: Certificates that a server sends after its leaf: the issuing certificate first, without the root.
    chain: tuple[x509.Certificate, ...]

    @property
    def alternates(self) -> tuple[tuple[x509.Certificate, ...], ...]:
        """Alternate chains to another root: the chain without the cross-certificate, if the chain contains one."""
        return (self.chain[:1],) if len(self.chain) > 1 else ()

    # Parsing these parts of the certificate for each leaf would take longer than signing the leaf.
    @functools.cached_property
    def key_id(self) -> bytes:
        """The subject key identifier of the issuer's certificate."""
        return self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    @functools.cached_property
    def not_after(self) -> float:
        """The time at which the issuer's certificate expires, in seconds since the epoch."""
        return self.certificate.not_valid_after_utc.timestamp()

    @functools.cached_property
    def public_key(self) -> CertificatePublicKeyTypes:
        """The public key in the issuer's certificate."""
        return self.certificate.public_key()

    @functools.cached_property
    def _constraints(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The permitted and the excluded DNS names in the certificate's name constraints, each with a leading dot."""
        try:
            constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return (), ()
        permitted, excluded = (
            tuple(f".{each.value}" for each in subtrees or () if isinstance(each, x509.DNSName))
            for subtrees in (constraints.permitted_subtrees, constraints.excluded_subtrees)
        )
        return permitted, excluded

    @functools.cached_property
    def algorithm(self) -> bytes:
        """The signature algorithm that `signed` uses, as an AlgorithmIdentifier in DER; only EC keys are supported."""
        if not isinstance(self.key, ec.EllipticCurvePrivateKey):
            raise AuthorityError("expected an issuing CA with an EC key")
        return _ECDSA_SHA384 if isinstance(hash_for(self.key), hashes.SHA384) else _ECDSA_SHA256

    def signed(self, content: bytes) -> bytes:
        """Sign *content*, a TBSCertificate or TBSCertList in DER; return the certificate or the CRL in DER."""
        head = content + self.algorithm
        signature = self.key.sign(content, ec.ECDSA(hash_for(self.key) or hashes.SHA256()))  # type: ignore[call-arg,arg-type]  # `algorithm` refuses other keys than EC keys
        return der.tlv(der.SEQUENCE, head + der.tlv(der.BIT_STRING, b"\0" + signature))

    def permits(self, name: str) -> bool:
        """Return whether the name constraints of the certificate permit the DNS name *name* (RFC 5280 4.2.1.10)."""
        permitted, excluded = self._constraints
        dotted = f".{name}"
        return (not permitted or dotted.endswith(permitted)) and not dotted.endswith(excluded)


@dataclass(frozen=True, slots=True)
class Urls:
    """URLs of an issuer's CRL, certificate and OCSP responder; plain HTTP is sufficient because all data is signed."""

    crl: str
    issuer: str
    #: URL of the OCSP responder; empty if there is none.
    ocsp: str = ""


def issue_root(key: CertificateIssuerPrivateKeyTypes, common_name: str, now: float) -> x509.Certificate:
    """Return a self-signed root certificate that is valid for `ROOT_LIFETIME` from *now* (seconds since the epoch)."""
    name = _name(common_name)
    builder = _builder(name, name, key.public_key(), now, ROOT_LIFETIME)
    return _as_ca(builder, key.public_key(), key.public_key(), path_length=None).sign(key, hash_for(key))


def issue_cross(issuer: Issuer, root: x509.Certificate, now: float) -> x509.Certificate:
    """Return a cross-certificate: the name and key of *root*, certified by the older root *issuer*.

    With the cross-certificate in the chain, clients that trust only the older root accept certificates issued under
    *root*.
    """
    key: CertificatePublicKeyTypes = root.public_key()
    end = min(each.not_valid_after_utc.timestamp() for each in (root, issuer.certificate))
    builder = _builder(root.subject, issuer.certificate.subject, key, now, min(INTERMEDIATE_LIFETIME, end - now))
    return _as_ca(builder, key, issuer.key.public_key(), path_length=1).sign(issuer.key, hash_for(issuer.key))


def issue_intermediate(
    parent: Issuer, public_key: CertificatePublicKeyTypes, common_name: str, now: float
) -> x509.Certificate:
    """Return an intermediate CA certificate that *parent* signs, constrained to the domains in `PERMITTED`."""
    lifetime = min(INTERMEDIATE_LIFETIME, parent.not_after - now)
    builder = _builder(_name(common_name), parent.certificate.subject, public_key, now, lifetime)
    permitted = [x509.DNSName(each) for each in PERMITTED]
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.NameConstraints(permitted, EXCLUDED), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return _as_ca(builder, public_key, parent.key.public_key(), path_length=0).sign(parent.key, hash_for(parent.key))


def issue_leaf(
    issuer: Issuer,
    public_key: CertificatePublicKeyTypes,
    names: Sequence[str],
    now: float,
    lifetime: float,
    backdate: float = BACKDATE,
    urls: Urls | None = None,
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    lint: Callable[[x509.Certificate, Issuer], None] | None = None,
) -> x509.Certificate:
    """Return a leaf certificate, by default for TLS servers and mTLS clients.

    Args:
        issuer: the CA that signs the leaf.  The leaf expires no later than the CA certificate.
        public_key: the subject's public key.
        names: DNS names; the first is also the common name if it has at most 64 characters.
        now: time of issuance, in seconds since the epoch.
        lifetime: seconds from *now* to notAfter.
        backdate: seconds from notBefore to *now*.
        urls: URLs for the extensions CRL distribution points and authority information access; None omits both.
        usages: extended key usages.
        lint: called with the complete certificate, signed with a throwaway key; an exception from this function
            prevents the issuer from signing.
    """
    builder = leaf_builder(issuer, public_key, names, now, lifetime, backdate, urls, usages)
    if lint is not None:
        lint(builder.sign(_WORTHLESS, hash_for(_WORTHLESS)), issuer)
    return builder.sign(issuer.key, hash_for(issuer.key))


def leaf_builder(
    issuer: Issuer,
    public_key: CertificatePublicKeyTypes,
    names: Sequence[str],
    now: float,
    lifetime: float,
    backdate: float,
    urls: Urls | None,
    usages: Sequence[x509.ObjectIdentifier],
    serial: int | None = None,
) -> x509.CertificateBuilder:
    """Return an unsigned leaf; see `issue_leaf` for the arguments.  *serial* is random by default."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else [])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
    builder = new_certificate(subject, issuer, public_key, now, lifetime, backdate, serial)
    if urls is not None:
        builder = _with_urls(builder, urls)
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(alternatives, critical=not list(subject))
        .add_extension(end_entity_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(authority_key_identifier(issuer.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def read_csr(request: bytes) -> tuple[x509.CertificateSigningRequest, list[str]]:
    """Parse a PKCS #10 certificate signing request; return it with its DNS names, in lower case and sorted.

    The names are those in subjectAltName and in the common names, combined (RFC 8555 section 7.4).

    Raises:
        BadCSRError: the request is malformed, has an invalid signature, a weak key, or names other than DNS names.
    """
    try:
        csr = x509.load_der_x509_csr(request)
        if not csr.is_signature_valid:
            raise BadCSRError("the request is not signed by the key that it contains")
        check_public_key(csr.public_key())
        common = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        general = list(_alternatives(csr))
    except WeakKeyError as error:
        raise BadCSRError(str(error)) from None
    except (*UNREADABLE, InvalidSignature) as error:
        raise BadCSRError(f"expected a PKCS #10 request in DER: {error}") from None
    names = {each.value.lower() for each in general if isinstance(each, x509.DNSName)}
    if not all(isinstance(each, x509.DNSName) for each in general):
        raise BadCSRError("expected DNS names and nothing else in subjectAltName")
    names |= {str(each.value).lower() for each in common}
    if not names:
        raise BadCSRError("expected the order's names in subjectAltName or the common name, got none")
    return csr, sorted(names)


def _alternatives(csr: x509.CertificateSigningRequest) -> Iterable[x509.GeneralName]:
    try:
        return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def new_certificate(
    subject: x509.Name,
    issuer: Issuer,
    public_key: CertificatePublicKeyTypes,
    now: float,
    lifetime: float,
    backdate: float,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    """Return a builder without extensions, for a certificate that *issuer* will sign.

    The certificate expires *lifetime* seconds after *now*, but no later than the CA certificate.  The serial number is
    random unless *serial* is given.
    """
    lifetime = min(lifetime, issuer.not_after - now)
    return _builder(subject, issuer.certificate.subject, public_key, now, lifetime, backdate, serial)


def new_serial() -> int:
    """Return a random serial number (BR 7.1 requires 64 bits) of constant length."""
    return secrets.randbits(127) | 1 << 126


def end_entity_usage() -> x509.KeyUsage:
    """Return the key usage extension of end-entity certificates, which permits digital signatures only."""
    return _usage(digital_signature=True)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: CertificatePublicKeyTypes,
    now: float,
    lifetime: float,
    backdate: float = BACKDATE,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial or new_serial())
        .not_valid_before(dt.datetime.fromtimestamp(int(now - backdate), dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(int(now + lifetime), dt.UTC))
    )


def _with_urls(builder: x509.CertificateBuilder, urls: Urls) -> x509.CertificateBuilder:
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(urls.crl)], None, None, None)
    methods = {AuthorityInformationAccessOID.OCSP: urls.ocsp, AuthorityInformationAccessOID.CA_ISSUERS: urls.issuer}
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in methods.items() if url
    ]
    builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)


def _as_ca(
    builder: x509.CertificateBuilder,
    public_key: CertificatePublicKeyTypes,
    authority_key: CertificatePublicKeyTypes,
    path_length: int | None,
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key_identifier(authority_key), critical=False)
    )


def authority_key_identifier(key: CertificatePublicKeyTypes) -> x509.AuthorityKeyIdentifier:
    """Return the extension that identifies the issuer's key."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]  # cryptography declares too narrow a type for the argument


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "firstbyte lab"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | hashes.SHA384 | None:
    """Return the hash function for signatures with *key*; None if the algorithm has a built-in hash (Ed25519)."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    wide = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256
    return hashes.SHA384() if wide else hashes.SHA256()
