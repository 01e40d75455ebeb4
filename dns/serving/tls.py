"""Server side of DNS over TLS (RFC 7858): command-line options, and certificates that are reloaded from disk."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from serving.connections import Handler
from serving.listener import show, start_tls
from telemetry import Telemetry, endpoint, log
from tlsreload import CertificateFiles, ReloadError, ReloadingContext

logger = log.get("serving")

#: ALPN identifier of DNS over TLS (RFC 7858 section 6).
ALPN = "dot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--tls``, ``--cert`` and ``--key``."""
    group = parser.add_argument_group("DNS over TLS")
    group.add_argument("--tls", type=endpoint, metavar="HOST:PORT", help="also answer over TLS here (usual port: 853)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="certificate chain (PEM), read again when it changes")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM; default: also in --cert)")


def context_of(args: argparse.Namespace, parser: argparse.ArgumentParser) -> ReloadingContext | None:
    """Return the TLS context; None without ``--tls``. Exit with a usage error if a file is unusable."""
    if args.tls is None and args.cert is None and args.key is None:
        return None
    if args.tls is None or args.cert is None:
        parser.error("expected --tls HOST:PORT and --cert FILE together")
    try:
        return ReloadingContext([CertificateFiles(args.cert, args.key or args.cert)], alpn=[ALPN])
    except ReloadError as error:
        parser.error(str(error))


@contextlib.asynccontextmanager
async def listening(
    at: tuple[str, int],
    certificates: ReloadingContext | None,
    handler: Handler,
    telemetry: Telemetry,
    *,
    shared: bool = False,
    announce: bool = True,
) -> AsyncIterator[None]:
    """Answer over TLS at the address *at*, and reload the certificate files when they change.

    Args:
        at: IP address and port.
        certificates: the TLS context; None to do nothing.
        handler: called on the event loop for each query.
        telemetry: telemetry of the server; its health page shows the certificate.
        shared: whether other processes may listen on the same port (SO_REUSEPORT).
        announce: whether to print the address.

    Raises:
        OSError: the address is in use or does not belong to this host.
    """
    if certificates is None:
        yield
        return

    def refused(error: ReloadError) -> None:
        telemetry.health.set("certificate", ok=False, detail=f"still using the old one: {error}")
        logger.error("certificate_refused", error=str(error))

    def accepted() -> None:
        certificate = certificates.certificates[0]
        telemetry.health.set("certificate", ok=True, detail=f"serial {certificate.serial}")
        logger.info("certificate_in_use", serial=certificate.serial, names=list(certificate.names))

    streams = await start_tls(at, handler, certificates.context, shared=shared)
    if announce:
        print(f"listening on {show(streams.address)} (tls)", flush=True)
    certificates.on_change(accepted)
    accepted()
    watching = asyncio.create_task(certificates.watch(on_error=refused))
    try:
        yield
    finally:
        watching.cancel()
        await streams.close()
