"""State machine for accounts, orders and authorizations (RFC 8555 section 7), without HTTP or a clock.

Every method reads the current record before it writes a change.  The status changes as section 7.1.6 specifies:

    order          pending ──all authorizations valid──▶ ready ──finalize──▶ valid
                   pending or ready ──one authorization not valid, or expired──▶ invalid
    authorization  pending ──challenge──▶ processing ──validation──▶ valid or invalid
                   pending, processing or valid ──the client──▶ deactivated
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from acme_server import problems
from acme_server.external_accounts import check_binding
from acme_server.jws import SignedRequest, decode, read_jwk, thumbprint
from acme_server.names import is_wildcard, read_identifier
from acme_server.problems import Problem
from authority import Account, Authorization, Certificate, Issuer, Order, Store, fingerprint

#: Time after which an unfinished order and its authorizations expire, in seconds.
ORDER_LIFETIME = 3600.0
#: Maximum number of names in an order.
MAX_NAMES = 50
#: A mailto URL with exactly one address and without header fields (RFC 8555 section 7.3).
_MAILBOX = re.compile(r"mailto:[^@,?\s]{1,64}@[A-Za-z0-9.-]{1,253}")


class Orders:
    """Operations on the accounts, orders and authorizations in a `Store`."""

    def __init__(self, store: Store, issuer: Issuer, profiles: Mapping[str, object]) -> None:
        """Use *store*; every method writes its changes to disk before it returns.

        Args:
            store: the CA's database.
            issuer: CA whose name constraints limit the names in orders.
            profiles: certificate profiles that orders can select, keyed by name; the first is the default.
        """
        self.store, self._issuer, self._profiles = store, issuer, profiles

    # --- accounts ---------------------------------------------------------------------------------------------------

    def register(
        self, request: SignedRequest, now: float, external: Mapping[str, bytes] | None = None
    ) -> tuple[Account, bool]:
        """Find or create the account for the request's key (RFC 8555 section 7.3).

        Args:
            request: the newAccount request.
            now: current time, in seconds since the epoch.
            external: keys for external account binding; a new account must be bound to one of them.  None if no binding
                is required.

        Returns:
            The account, and whether it is new.
        """
        if request.jwk is None:
            raise problems.malformed("expected jwk, not kid, in a newAccount request")
        request.verify(request.jwk)
        body = request.json()
        print_ = thumbprint(request.jwk)
        known = self.store.account_by_thumbprint(print_)
        if known is not None:
            if known.status != "valid":
                raise problems.unauthorized(f"this account is {known.status}")
            return known, False
        if body.get("onlyReturnExisting"):
            raise problems.account_does_not_exist("there is no account with this key")
        contact = _contact(body)
        binding = None if external is None else check_binding(external, request, body.get("externalAccountBinding"))
        account = Account(_identifier(), print_, self._usable(request.jwk), "valid", contact, now, binding)
        self.store.put_account(account)
        return account, True

    def update_account(self, account: Account, body: dict[str, Any]) -> Account:
        """Change an account's contact addresses or deactivate it (RFC 8555 sections 7.3.2 and 7.3.6)."""
        if "contact" in body:
            account = replace(account, contact=_contact(body))
        if (status := body.get("status", account.status)) != account.status:
            if status != "deactivated":
                raise problems.malformed(f"expected status deactivated, got {status!r}")
            account = replace(account, status="deactivated")
        self.store.put_account(account)
        return account

    def change_key(self, account: Account, inner: SignedRequest, account_url: str) -> Account:
        """Replace the account's key with the key that signed *inner* (RFC 8555 section 7.3.5)."""
        if inner.jwk is None:
            raise problems.malformed("expected jwk in the inner JWS")
        inner.verify(inner.jwk)
        body = inner.json()
        old = body.get("oldKey")
        if body.get("account") != account_url or not isinstance(old, dict) or _public(old) != account.jwk:
            raise problems.malformed("expected the account's URL and its present key in the inner JWS")
        print_ = thumbprint(inner.jwk)
        if (other := self.store.account_by_thumbprint(print_)) is not None:
            where = {"Location": account_url.removesuffix(account.id) + other.id}
            raise problems.conflict("an account has this key already", headers=where)
        account = replace(account, jwk=self._usable(inner.jwk), thumbprint=print_)
        self.store.put_account(account)
        return account

    def _usable(self, jwk: dict[str, Any]) -> dict[str, Any]:
        """Return the members of *jwk* to store; raise `Problem` if its key is known to be compromised."""
        key, _ = read_jwk(jwk)
        if self.store.compromised(fingerprint(key)):
            raise problems.bad_public_key("expected a key that is not known to be compromised")
        return _public(jwk)

    # --- orders -----------------------------------------------------------------------------------------------------

    def create(self, account: Account, body: dict[str, Any], now: float) -> Order:
        """Create an order with one authorization per name (RFC 8555 section 7.4)."""
        names = self._identifiers(body)
        if "notBefore" in body or "notAfter" in body:
            raise problems.malformed("notBefore and notAfter are not supported: the CA sets the validity period")
        profile = body.get("profile", next(iter(self._profiles)))
        if not isinstance(profile, str) or profile not in self._profiles:
            detail = f"expected a profile of {', '.join(self._profiles)}; got {profile!r}"
            raise problems.invalid_profile(detail[:300])
        replaces = self._replaced(account, names, body.get("replaces"))
        order = Order(
            _identifier(), account.id, "pending", names, now + ORDER_LIFETIME, profile=profile, replaces=replaces
        )
        opened = [
            Authorization(
                _identifier(), order.id, account.id, name, "pending", secrets.token_urlsafe(32), order.expires
            )
            for name in names
        ]
        self.store.open_order(order, opened)
        return order

    def _replaced(self, account: Account, names: tuple[str, ...], replaces: object) -> str | None:
        """Return the serial number of the certificate that an order replaces (RFC 9773 section 5), or None."""
        if replaces is None:
            return None
        found = find_certificate(self.store, replaces) if isinstance(replaces, str) else None
        if found is None or found.account != account.id or not set(found.names) & set(names):
            raise problems.malformed("expected replaces to identify a certificate of this account with a common name")
        if self.store.replaced(found.serial):
            raise problems.already_replaced("another order replaces this certificate already")
        return found.serial

    def unfinished(self, now: float) -> list[tuple[Authorization, Account]]:
        """Return the authorizations whose validation was interrupted when the server stopped, with their accounts."""
        begun = ((each, self.store.account(each.account)) for each in self.store.processing(now))
        return [(each, account) for each, account in begun if account is not None]

    def order(self, account: Account, order_id: str, now: float) -> Order:
        """Return the order with this id, after updating its status; raise `Problem` unless it belongs to *account*."""
        order = self.store.order(order_id)
        if order is None:
            raise problems.not_found("there is no such order")
        if order.account != account.id:
            raise problems.unauthorized("this order belongs to another account")
        return self.refresh(order, now)

    def refresh(self, order: Order, now: float) -> Order:
        """Update the status of *order*, and return the updated order.

        The order becomes ready when all its authorizations are valid.  It becomes invalid when it expires, or when one
        of its authorizations is invalid or deactivated.
        """
        order = self.store.order(order.id) or order
        if order.status not in {"pending", "ready"}:
            return order
        states = {each.status for each in self.store.authorizations(order.id)}
        if order.expires <= now or "invalid" in states or "deactivated" in states:
            broken = next((a.error for a in self.store.authorizations(order.id) if a.error), None)
            reason = "an authorization was deactivated" if "deactivated" in states else "the order expired"
            error = broken or problems.unauthorized(reason).document()
            order = replace(order, status="invalid", error=error)
        elif order.status == "pending" and states == {"valid"}:
            order = replace(order, status="ready")
        else:
            return order
        self.store.put_order(order)
        return order

    def authorization(self, account: Account, authorization_id: str) -> Authorization:
        """Return the authorization with this id; raise `Problem` unless it belongs to *account*."""
        found = self.store.authorization(authorization_id)
        if found is None:
            raise problems.not_found("there is no such authorization")
        if found.account != account.id:
            raise problems.unauthorized("this authorization belongs to another account")
        return found

    def settle(self, authorization: Authorization, problem: Problem | None, now: float) -> Authorization:
        """Record the result of a validation; *problem* is None if it succeeded.

        Returns:
            The stored authorization; it is unchanged if its status is no longer ``processing``.
        """
        change = {"status": "valid", "validated": now} if problem is None else {"error": problem.document()}
        return self._move(authorization, {"processing"}, **{"status": "invalid", **change})

    def processing(self, authorization: Authorization, method: str) -> Authorization:
        """If *authorization* is pending, record that its validation with challenge type *method* has started."""
        return self._move(authorization, {"pending"}, status="processing", method=method)

    def deactivate(self, authorization: Authorization) -> Authorization:
        """Mark an authorization as deactivated unless it is invalid (RFC 8555 section 7.5.2)."""
        return self._move(authorization, {"pending", "processing", "valid"}, status="deactivated")

    def finalize(self, order: Order, certificate: Certificate, now: float) -> Order:
        """Record *certificate* as the result of *order*; raise `Problem` unless the order is still ready."""
        check_ready(found := self.refresh(order, now))
        expires = max(found.expires, certificate.not_after)
        done = replace(found, status="valid", serial=certificate.serial, expires=expires)
        self.store.put_order(done, certificate=certificate)
        return done

    def _move(self, authorization: Authorization, start: set[str], **change: Any) -> Authorization:
        """Apply *change* to the stored authorization if its status is in *start*; return the stored authorization."""
        found = self.store.authorization(authorization.id)
        order = self.store.order(authorization.order)
        if found is None or order is None:
            raise problems.server_internal("an authorization disappeared from the store")
        if found.status not in start:
            return found
        found = replace(found, **change)
        self.store.put_order(order, found)
        return found

    def may_revoke(self, account: Account, certificate: Certificate, now: float) -> bool:
        """Return whether *account* ordered *certificate* or is authorized for all its names (RFC 8555 section 7.6)."""
        if certificate.account == account.id:
            return True
        return set(certificate.names) <= self.store.authorized_names(account.id, now)

    def _identifiers(self, body: dict[str, Any]) -> tuple[str, ...]:
        listed = body.get("identifiers")
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_NAMES:
            raise problems.malformed(f"expected 1 to {MAX_NAMES} identifiers")
        names = []
        for each in listed:
            if not isinstance(each, dict) or each.get("type") != "dns":
                raise problems.unsupported_identifier(f"expected identifiers of type dns, got {each!r}"[:200])
            names.append(read_identifier(each.get("value"), self._issuer))
        return tuple(dict.fromkeys(names))


def key_authorization(token: str, account: Account) -> str:
    """Return the key authorization, which is the required http-01 response body (RFC 8555 section 8.1)."""
    return f"{token}.{account.thumbprint}"


def find_certificate(store: Store, identifier: str) -> Certificate | None:
    """Return the certificate with the given unique identifier (RFC 9773 section 4.1), or None."""
    issuer, _, serial = identifier.partition(".")
    try:
        found = store.certificate(f"{int.from_bytes(decode(serial)):x}") if serial else None
        return found if found is not None and found.issuer in {"", decode(issuer).hex()} else None
    except Problem:
        return None


def offered(name: str) -> tuple[str, ...]:
    """Return the challenge types that can validate control of *name*."""
    return ("dns-01",) if is_wildcard(name) else ("http-01", "dns-01")


def check_ready(order: Order) -> None:
    """Raise `Problem` unless *order* can be finalized."""
    if order.status != "ready":
        raise problems.order_not_ready(f"expected an order that is ready, this one is {order.status}")


def check_names(order: Order, asked: Sequence[str]) -> None:
    """Raise `Problem` unless *asked*, the names in the CSR, are exactly the order's names."""
    if sorted(asked) != sorted(order.names):
        raise problems.bad_csr(f"expected exactly {', '.join(sorted(order.names))}; got {', '.join(sorted(asked))}")


def _contact(body: dict[str, Any]) -> tuple[str, ...]:
    contact = body.get("contact", [])
    if not isinstance(contact, list) or len(contact) > 10 or not all(isinstance(each, str) for each in contact):
        raise problems.malformed("expected contact to be a short list of URLs")
    for each in contact:
        if not each.startswith("mailto:"):
            raise problems.unsupported_contact(f"expected mailto: URLs, got {each!r}"[:200])
        if not _MAILBOX.fullmatch(each):
            raise problems.invalid_contact(f"expected one address and no header fields, got {each!r}"[:200])
    return tuple(contact)


def _public(jwk: dict[str, Any]) -> dict[str, Any]:
    read_jwk(jwk)
    return {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}


def _identifier() -> str:
    return secrets.token_urlsafe(12)
