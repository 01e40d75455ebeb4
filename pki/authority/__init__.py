"""The certificate authority: keys, certificate profiles, issuance, chains and the store (RFC 5280).

This package issues every requested certificate; `acme_server` checks that the client controls the names.
"""

from authority.ceremony import Ceremony, CeremonyError
from authority.errors import AuthorityError, BadCSRError, KeyFileError, StoreError, WeakKeyError
from authority.hash_chain import ChainError
from authority.issuance import (
    BACKDATE,
    UNREADABLE,
    Issuer,
    Urls,
    hash_for,
    issue_intermediate,
    issue_leaf,
    issue_root,
    read_csr,
)
from authority.issuance_log import IssuanceLog, LogError
from authority.keys import load_issuer, load_private_key, new_key, private_key_pem
from authority.public_keys import check_public_key, fingerprint
from authority.records import Account, Authorization, Certificate, Order, Recall
from authority.revocation import Revoked, issue_crl
from authority.store import Store
from authority.transcript import Transcript

__all__ = [
    "BACKDATE",
    "UNREADABLE",
    "Account",
    "AuthorityError",
    "Authorization",
    "BadCSRError",
    "Ceremony",
    "CeremonyError",
    "Certificate",
    "ChainError",
    "IssuanceLog",
    "Issuer",
    "KeyFileError",
    "LogError",
    "Order",
    "Recall",
    "Revoked",
    "Store",
    "StoreError",
    "Transcript",
    "Urls",
    "WeakKeyError",
    "check_public_key",
    "fingerprint",
    "hash_for",
    "issue_crl",
    "issue_intermediate",
    "issue_leaf",
    "issue_root",
    "load_issuer",
    "load_private_key",
    "new_key",
    "private_key_pem",
    "read_csr",
]
