"""State machine for accounts, orders and authorizations (RFC 8555 section 7), without HTTP or a clock.

States of an order:

pending ──all authorizations valid──▶ ready ──finalize──▶ valid
└────────one invalid, or expired──────▶ invalid
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from acme_server.jws import SignedRequest, read_jwk, thumbprint
from acme_server.problems import Problem
from authority import Account, Authorization, Certificate, Order, Store

#: Time after which an unfinished order and its authorizations expire, in seconds.
ORDER_LIFETIME = 3600.0
#: Maximum number of names in an order.
MAX_NAMES = 50
_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")
#: A mailto URL with exactly one address and without header fields (RFC 8555 section 7.3).
_MAILBOX = re.compile(r"mailto:[^@,?\s]{1,64}@[A-Za-z0-9.-]{1,253}")


class Orders:
    """Operations on the accounts, orders and authorizations in a `Store`."""

    def __init__(self, store: Store) -> None:
        """Use *store*; every method writes its changes to disk before it returns."""
        self.store = store

    # --- accounts ---------------------------------------------------------------------------------------------------

    def register(self, request: SignedRequest, now: float) -> tuple[Account, bool]:
        """Find or create the account for the request's key (section 7.3).

        Returns:
            The account, and whether it is new.
        """
        if request.jwk is None:
            raise Problem("malformed", "expected jwk, not kid, in a newAccount request")
        request.verify(request.jwk)
        body = request.json()
        fingerprint = thumbprint(request.jwk)
        known = self.store.account_by_thumbprint(fingerprint)
        if known is not None:
            if known.status != "valid":
                raise Problem("unauthorized", f"this account is {known.status}")
            return known, False
        if body.get("onlyReturnExisting"):
            raise Problem("accountDoesNotExist", "there is no account with this key")
        contact = _contact(body)
        account = Account(_identifier(), fingerprint, _public(request.jwk), "valid", contact, now)
        self.store.put_account(account)
        return account, True

    def update_account(self, account: Account, body: dict[str, Any]) -> Account:
        """Change an account's contact addresses or deactivate it (sections 7.3.2 and 7.3.6)."""
        if "contact" in body:
            account = replace(account, contact=_contact(body))
        if (status := body.get("status", account.status)) != account.status:
            if status != "deactivated":
                raise Problem("malformed", f"expected status deactivated, got {status!r}")
            account = replace(account, status="deactivated")
        self.store.put_account(account)
        return account

    def change_key(self, account: Account, inner: SignedRequest, account_url: str) -> Account:
        """Replace the account's key with the key that signed *inner* (section 7.3.5)."""
        if inner.jwk is None:
            raise Problem("malformed", "expected jwk in the inner JWS")
        inner.verify(inner.jwk)
        body = inner.json()
        if body.get("account") != account_url or body.get("oldKey") != account.jwk:
            raise Problem("malformed", "expected the account's URL and its present key in the inner JWS")
        fingerprint = thumbprint(inner.jwk)
        if (other := self.store.account_by_thumbprint(fingerprint)) is not None:
            where = {"Location": account_url.removesuffix(account.id) + other.id}
            raise Problem("conflict", "an account has this key already", headers=where)
        account = replace(account, jwk=_public(inner.jwk), thumbprint=fingerprint)
        self.store.put_account(account)
        return account

    # --- orders -----------------------------------------------------------------------------------------------------

    def create(self, account: Account, body: dict[str, Any], now: float) -> Order:
        """Create an order with one authorization per name (section 7.4)."""
        names = _identifiers(body)
        if "notBefore" in body or "notAfter" in body:
            raise Problem("malformed", "notBefore and notAfter are not supported: the CA decides how long")
        order = Order(_identifier(), account.id, "pending", names, now + ORDER_LIFETIME)
        opened = [
            Authorization(
                _identifier(), order.id, account.id, name, "pending", secrets.token_urlsafe(32), order.expires
            )
            for name in names
        ]
        self.store.put_order(order, *opened)
        return order

    def unfinished(self, now: float) -> list[tuple[Authorization, Account]]:
        """Return the validations interrupted by the server's last stop, as authorizations with their accounts."""
        begun = ((each, self.store.account(each.account)) for each in self.store.processing(now))
        return [(each, account) for each, account in begun if account is not None]

    def order(self, account: Account, order_id: str, now: float) -> Order:
        """Return an order that belongs to *account*, after updating its status (see `refresh`)."""
        order = self.store.order(order_id)
        if order is None:
            raise Problem("notFound", "there is no such order")
        if order.account != account.id:
            raise Problem("unauthorized", "this order belongs to another account")
        return self.refresh(order, now)

    def refresh(self, order: Order, now: float) -> Order:
        """Update an order's status: ready if all authorizations are valid, invalid if one failed or it expired."""
        if order.status not in {"pending", "ready"}:
            return order
        states = {each.status for each in self.store.authorizations(order.id)}
        if order.expires <= now or "invalid" in states or "deactivated" in states:
            broken = next((a.error for a in self.store.authorizations(order.id) if a.error), None)
            error = broken or Problem("unauthorized", "the order expired").document()
            order = replace(order, status="invalid", error=error)
        elif order.status == "pending" and states == {"valid"}:
            order = replace(order, status="ready")
        else:
            return order
        self.store.put_order(order)
        return order

    def authorization(self, account: Account, authorization_id: str) -> Authorization:
        """Return an authorization that belongs to *account*; raise `Problem` for any other."""
        found = self.store.authorization(authorization_id)
        if found is None:
            raise Problem("notFound", "there is no such authorization")
        if found.account != account.id:
            raise Problem("unauthorized", "this authorization belongs to another account")
        return found

    def settle(self, authorization: Authorization, problem: Problem | None, now: float) -> Authorization:
        """Record the result of a validation; *problem* is None if it succeeded (section 7.1.6)."""
        if problem is None:
            settled = replace(authorization, status="valid", validated=now)
        else:
            settled = replace(authorization, status="invalid", error=problem.document())
        return self._put(settled)

    def processing(self, authorization: Authorization) -> Authorization:
        """Record that validation of *authorization* has started."""
        return self._put(replace(authorization, status="processing"))

    def deactivate(self, authorization: Authorization) -> Authorization:
        """Mark an authorization as deactivated (section 7.5.2)."""
        return self._put(replace(authorization, status="deactivated"))

    def may_revoke(self, account: Account, certificate: Certificate, now: float) -> bool:
        """Return whether *account* ordered *certificate*, or has authorizations for all its names (section 7.6)."""
        if certificate.account == account.id:
            return True
        return set(certificate.names) <= self.store.authorized_names(account.id, now)

    def _put(self, authorization: Authorization) -> Authorization:
        order = self.store.order(authorization.order)
        if order is None:
            raise Problem("serverInternal", "an authorization without its order")
        self.store.put_order(order, authorization)
        return authorization


def key_authorization(token: str, account: Account) -> str:
    """Return the key authorization, which is the required http-01 response body (RFC 8555 section 8.1)."""
    return f"{token}.{account.thumbprint}"


def check_names(order: Order, asked: Sequence[str]) -> None:
    """Raise `Problem` unless the names in a CSR, *asked*, are exactly the order's names."""
    if sorted(asked) != sorted(order.names):
        raise Problem("badCSR", f"expected exactly {', '.join(sorted(order.names))}; got {', '.join(sorted(asked))}")


def _identifiers(body: dict[str, Any]) -> tuple[str, ...]:
    listed = body.get("identifiers")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_NAMES:
        raise Problem("malformed", f"expected 1 to {MAX_NAMES} identifiers")
    names = []
    for each in listed:
        if not isinstance(each, dict) or each.get("type") != "dns":
            raise Problem("unsupportedIdentifier", f"expected identifiers of type dns, got {each!r}"[:200])
        value = each.get("value")
        if not isinstance(value, str) or not _NAME.fullmatch(value.lower()):
            raise Problem("rejectedIdentifier", f"expected a host name without wildcard, got {value!r}"[:200])
        names.append(value.lower())
    return tuple(dict.fromkeys(names))


def _contact(body: dict[str, Any]) -> tuple[str, ...]:
    contact = body.get("contact", [])
    if not isinstance(contact, list) or len(contact) > 10 or not all(isinstance(each, str) for each in contact):
        raise Problem("malformed", "expected contact to be a short list of URLs")
    for each in contact:
        if not each.startswith("mailto:"):
            raise Problem("unsupportedContact", f"expected mailto: URLs, got {each!r}"[:200])
        if not _MAILBOX.fullmatch(each):
            raise Problem("invalidContact", f"expected one address and no header fields, got {each!r}"[:200])
    return tuple(contact)


def _public(jwk: dict[str, Any]) -> dict[str, Any]:
    read_jwk(jwk)
    return {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}


def _identifier() -> str:
    return secrets.token_urlsafe(12)
