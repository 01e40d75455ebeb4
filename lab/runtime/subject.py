"""Subjects: programs of the user that have joined the lab, with an address in a region and a DNS name."""

import ipaddress
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hostfiles.layout import DEFAULT_PREFIX, PREFIX_VARIABLE, TRUST_ANCHOR
from netns_engine import variables
from netns_engine.joining import VARIABLE
from runtime.errors import LabError, UsageError

#: ACME directory of the lab's CA.
DIRECTORY = "https://ca.example.com/directory"
#: Folder of a subject's own files, which its observer watches for certificates.
FOLDER = "/srv/subject"
#: Values of the last octet of a subject's address.  In the region `access`, Docker assigns addresses from 128 upwards.
OCTETS = range(100, 128)


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject in the lab."""

    #: Name of its host, as in ``firstbyte exec HOST``.
    host: str
    #: DNS name, without a final dot.
    name: str
    #: TCP port on which it should listen.
    port: int
    #: IPv4 address on the lab's network.
    address: str

    @classmethod
    def parse(cls, host: str, text: str, address: str) -> "Subject":
        """Return the subject whose NAME:PORT is *text*."""
        name, _, port = text.rpartition(":")
        return cls(host, name, int(port), address)

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables from which common programs take their trusted roots, and ACME clients the directory."""
        root = str(TRUST_ANCHOR)
        java = f"-Djavax.net.ssl.trustStore={FOLDER}/trust.p12 -Djavax.net.ssl.trustStorePassword=changeit"
        bundles = (
            "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "LEGO_CA_CERTIFICATES"
        )  # fmt: skip
        return {
            **dict.fromkeys(bundles, root),
            "JAVA_TOOL_OPTIONS": java,
            "ACME_DIRECTORY": DIRECTORY,
            "SUBJECT_NAME": self.name,
            "SUBJECT_PORT": str(self.port),
            VARIABLE: str(self),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """The program that joins the lab; exactly one of the fields is set."""

    #: With Docker, an image and, optionally, a command for it; in namespaces, a program of this machine.
    words: tuple[str, ...] = ()
    #: Name of a running container.
    container: str = ""


def regions(project: Path) -> dict[str, ipaddress.IPv4Network]:
    """Return the regions of the lab in *project* with their subnets.

    Raises:
        LabError: the file of links cannot be read.
    """
    path = project / "lab" / "etc" / "links.toml"
    prefix = variables.read(project).get(PREFIX_VARIABLE) or DEFAULT_PREFIX
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8").replace(DEFAULT_PREFIX, prefix))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    return {name: ipaddress.IPv4Network(subnet) for name, subnet in document["regions"].items()}


def region_of(address: str, project: Path) -> str:
    """Return the region that contains *address*, or "" if none does."""
    found = (name for name, subnet in regions(project).items() if ipaddress.IPv4Address(address) in subnet)
    return next(found, "")


def free_address(subnet: ipaddress.IPv4Network, taken: Iterable[str]) -> str:
    """Return the first free address for a subject in *subnet*.

    Raises:
        UsageError: all addresses are taken.
    """
    used = set(taken)
    for octet in OCTETS:
        address = str(subnet.network_address + octet)
        if address not in used:
            return address
    raise UsageError(f"all {len(OCTETS)} addresses for subjects in {subnet} are taken: `firstbyte leave NAME`")
