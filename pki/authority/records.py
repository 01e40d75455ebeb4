"""The records of the CA's database: accounts, orders, authorizations, certificates and recalls."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """An ACME account (RFC 8555 section 7.1.2)."""

    id: str
    #: JWK thumbprint of the account key, in base64url (RFC 7638).
    thumbprint: str
    jwk: dict[str, Any]
    status: str
    contact: tuple[str, ...]
    #: Time of registration, in seconds since the epoch.
    created: float
    #: External account binding (RFC 8555 section 7.3.4), a JWS; None if the account has no binding.
    binding: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An ACME order (RFC 8555 section 7.1.3); its status is pending, ready, processing, valid or invalid."""

    id: str
    account: str
    status: str
    names: tuple[str, ...]
    #: Time at which an unfinished order becomes invalid, or at which the issued certificate expires, in seconds since
    #: the epoch.
    expires: float
    #: Serial number of the issued certificate, in hexadecimal; None until the order is valid.
    serial: str | None = None
    #: The reason why the order is invalid, as an ACME problem document.
    error: dict[str, Any] | None = None
    #: Name of the certificate profile; empty in orders stored by earlier versions.
    profile: str = ""
    #: Serial number of the certificate that the new one replaces (RFC 9773 section 5), in hexadecimal.
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """An ACME authorization (RFC 8555 section 7.1.4); its challenges share one token."""

    id: str
    order: str
    account: str
    name: str
    status: str
    token: str
    #: Time of expiry, in seconds since the epoch.
    expires: float
    #: Time of successful validation, in seconds since the epoch; None before successful validation.
    validated: float | None = None
    #: The reason why validation failed, as an ACME problem document.
    error: dict[str, Any] | None = None
    #: Challenge type chosen by the client, such as ``http-01``; empty until the client chooses.
    method: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """An issued certificate; all times are in seconds since the epoch."""

    #: Serial number in lower-case hexadecimal.
    serial: str
    account: str | None
    names: tuple[str, ...]
    not_before: float
    not_after: float
    issued: float
    #: Leaf and chain, in PEM.
    pem: str
    revoked: float | None = None
    #: Revocation reason (RFC 5280 section 5.3.1).
    reason: int | None = None
    #: Key identifier of the issuer, in hexadecimal.
    issuer: str = ""


Record = Account | Order | Authorization | Certificate


@dataclass(frozen=True, slots=True)
class Recall:
    """An operator's request to replace certificates; times are in seconds since the epoch."""

    created: float
    #: Serial numbers of the selected certificates, in hexadecimal; empty selects all certificates of the issuer.
    serials: tuple[str, ...]
    #: Key identifier of the selected issuer, in hexadecimal; empty selects all issuers.
    issuer: str
    #: Start of the window in which clients should replace the certificates.
    start: float
    #: End of the window.
    end: float
    #: URL of a page that explains the recall; may be empty.
    url: str

    def selects(self, certificate: Certificate) -> bool:
        """Return whether the recall selects *certificate*; certificates issued after the recall are never selected."""
        if certificate.issued > self.created or (self.serials and certificate.serial not in self.serials):
            return False
        return self.issuer in {"", certificate.issuer}
