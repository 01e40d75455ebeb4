"""Independent TLS clients and certificate verifiers, which verify a server's chain during a rotation.

Every installed client is used; OpenSSL and the verifier of the package ``cryptography`` are always available.
"""

import asyncio
import datetime as dt
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import AuthorityInformationAccessOID

from monitor.openssl import Prober

#: Time-out of one verifier, in seconds.
TIMEOUT = 15.0
#: Reason returned if a verifier does not finish in time; a time-out says nothing about whether the chain is valid.
NO_VERDICT = f"no verdict within {TIMEOUT:g} s"
#: One verifier for each library, in addition to `IN_PROCESS`.
BY_LIBRARY = ("openssl s_client", "GnuTLS certtool")
#: Name of the verifier that runs inside this process.
IN_PROCESS = "cryptography"
#: JavaScript program that requests a URL; arguments: the URL, and the PEM file with the trusted roots.
NODE = (
    "const [url, file] = process.argv.slice(1); require('https').get(url, {ca: require('fs').readFileSync(file)},"
    " answer => process.exit(answer.statusCode == 200 ? 0 : 1))"
)


@dataclass(frozen=True, slots=True)
class Presented:
    """A chain presented by a server, and the PEM files into which it was divided."""

    name: str
    port: int
    #: File with the trusted roots.
    trust: Path
    #: The certificates that the server sent, leaf first.
    chain: tuple[x509.Certificate, ...]
    #: Folder with ``leaf.pem``, ``issuer.pem`` and ``chain.pem`` (the whole chain).
    folder: Path

    @property
    def ocsp_url(self) -> str:
        """URL of the OCSP responder, from the leaf."""
        access = self.chain[0].extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        method = AuthorityInformationAccessOID.OCSP
        return next(str(each.access_location.value) for each in access if each.access_method == method)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A program that judges a server or its chain: exit code 0 means that the certificate is accepted."""

    name: str
    program: str
    command: Callable[[Presented], Sequence[str]]
    #: Texts that the output must contain, in addition to exit code 0.
    says: tuple[str, ...] = ()


VERIFIERS = (
    Verifier(
        "openssl s_client",
        "openssl",
        lambda p: (
            "openssl", "s_client", "-connect", f"{p.name}:{p.port}", "-servername", p.name, "-CAfile", str(p.trust),
            "-verify_hostname", p.name, "-verify_return_error", "-x509_strict", "-crl_check", "-crl_download",
        ),
    ),
    Verifier(
        "openssl ocsp",
        "openssl",
        lambda p: (
            "openssl", "ocsp", "-issuer", f"{p.folder}/issuer.pem", "-cert", f"{p.folder}/leaf.pem",
            "-CAfile", str(p.trust), "-verify_other", f"{p.folder}/chain.pem", "-url", p.ocsp_url, "-no_nonce",
        ),
        says=("Response verify OK", "leaf.pem: good"),
    ),
    Verifier(
        "GnuTLS certtool",
        "certtool",
        lambda p: (
            "certtool", "--verify", "--load-ca-certificate", str(p.trust), "--infile", f"{p.folder}/chain.pem",
            "--verify-hostname", p.name,
        ),
    ),
    Verifier("GnuTLS gnutls-cli", "gnutls-cli", lambda p: (
        "gnutls-cli", "--x509cafile", str(p.trust), "--port", str(p.port), p.name,
    )),
    Verifier("curl", "curl", lambda p: (
        "curl", "-sS", "--fail", "--cacert", str(p.trust), "-o", "/dev/null", f"https://{p.name}:{p.port}/",
    )),
    Verifier("Node", "node", lambda p: ("node", "-e", NODE, f"https://{p.name}:{p.port}/", str(p.trust))),
)  # fmt: skip


def installed(*, everyone: bool = True) -> list[str]:
    """Return the names of the installed verifiers: all of them if *everyone*, otherwise one for each library."""
    return [*(each.name for each in _chosen(everyone=everyone)), IN_PROCESS]


async def judge(name: str, trust: Path, port: int = 443, *, everyone: bool = True) -> dict[str, str]:
    """Let verifiers judge the server *name*; return the reason of each refusal, "" if it is accepted.

    Args:
        name: DNS name of the server.
        trust: PEM file with the trusted roots.
        port: TCP port of the server.
        everyone: whether all installed verifiers judge, or only one for each library.

    Raises:
        OSError: the server presented no chain.
    """
    probe = await Prober(name, trust, port).look(lambda: 0.0)
    if len(probe.chain) < 2:
        raise ConnectionError(f"{name}: expected a chain, got {probe.error or 'a leaf only'}")
    with tempfile.TemporaryDirectory() as folder:
        presented = Presented(name, port, trust, probe.chain, Path(folder))
        for file, certificates in (("leaf", probe.chain[:1]), ("issuer", probe.chain[1:2]), ("chain", probe.chain)):
            pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
            (presented.folder / f"{file}.pem").write_bytes(pem)
        chosen = _chosen(everyone=everyone)
        verdicts = await asyncio.gather(*(_run(each, presented) for each in chosen))
    found = {each.name: verdict for each, verdict in zip(chosen, verdicts, strict=True)}
    return {**found, IN_PROCESS: verify(presented)}


def _chosen(*, everyone: bool) -> list[Verifier]:
    return [each for each in VERIFIERS if shutil.which(each.program) and (everyone or each.name in BY_LIBRARY)]


async def _run(verifier: Verifier, presented: Presented) -> str:
    process = await asyncio.create_subprocess_exec(
        *verifier.command(presented),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
    except TimeoutError:
        return NO_VERDICT
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode == 0 and all(each in text for each in verifier.says):
        return ""
    lines = [line.strip() for line in text.splitlines() if re.search("error|fail|not trusted", line, re.IGNORECASE)]
    return (lines or [f"exit code {process.returncode}"])[0][:160]


def verify(presented: Presented) -> str:
    """Let the verifier of ``cryptography`` judge a chain; return the reason of the refusal, "" if it is accepted."""
    roots = x509.load_pem_x509_certificates(presented.trust.read_bytes())
    policy = verification.PolicyBuilder().store(verification.Store(roots)).time(dt.datetime.now(dt.UTC))
    try:
        leaf, *rest = presented.chain
        policy.build_server_verifier(x509.DNSName(presented.name)).verify(leaf, rest)
    except verification.VerificationError as error:
        return str(error)[:160]
    return ""
