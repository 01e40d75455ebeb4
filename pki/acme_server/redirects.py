"""Redirects that http-01 validation follows (RFC 8555 section 8.3, Baseline Requirements 3.2.2.4.19).

These checks prevent server-side request forgery: the CA connects only to web servers of names that it may certify.
Nothing here opens a connection.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from acme_server import problems
from acme_server.names import read_name
from authority import Issuer

#: Status codes of redirects that the Baseline Requirements permit.
STATUSES = (301, 302, 307, 308)
#: Maximum number of redirects for one validation.
MAX_REDIRECTS = 10
#: Maximum length of a redirect's URL.
MAX_URL = 2000


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the web servers and name servers that the CA contacts; only tests change the defaults."""

    http: int = 80
    https: int = 443
    dns: int = 53


@dataclass(frozen=True, slots=True)
class Target:
    """The server and path of the next validation request."""

    tls: bool
    name: str
    port: int
    #: Path and query.
    path: str

    def __str__(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.name}:{self.port}{self.path}"


def next_target(target: Target, location: str, issuer: Issuer, ports: Ports) -> Target:
    """Return the target to which a response from *target* redirects.

    Args:
        target: the target that was requested.
        location: value of the Location header, an absolute or relative URL.
        issuer: must be permitted to certify the new target's name.
        ports: the only ports that may be connected to, one per scheme.

    Raises:
        Problem: the redirect is not permitted.
    """
    refusal = problems.unauthorized(
        f"{target}: expected a redirect to http port {ports.http} or https port {ports.https} of a host name, "
        f"got {location!r}"[:300]
    )
    # Check before urlsplit, because urlsplit removes control characters.
    if not location or len(location) > MAX_URL or not all("!" <= each <= "~" for each in location):
        raise refusal
    try:
        url = urlsplit(urljoin(str(target), location))
        port = url.port
    except ValueError:
        raise refusal from None
    tls = url.scheme == "https"
    wanted, default = (ports.https, 443) if tls else (ports.http, 80)
    if url.scheme not in {"http", "https"} or "@" in url.netloc or (default if port is None else port) != wanted:
        raise refusal
    return Target(tls, read_name(url.hostname, issuer), wanted, _path(url))


def check_address(address: str, *, local: bool) -> None:
    """Raise `Problem` if the CA must not connect to *address* because no other host's web server can have this address.

    Args:
        address: IPv4 address of the name being validated, or of a redirect's target.
        local: whether the CA and all servers run on one machine, as in tests, so that loopback addresses are permitted.
    """
    found = ipaddress.ip_address(address)
    if found.is_loopback:
        refused = not local
    else:
        refused = found.is_link_local or found.is_multicast or found.is_unspecified or found.is_reserved
    if refused:
        raise problems.unauthorized(f"expected the address of another host, got {address}")


def _path(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")
