"""``python -m encrypted``: a recursive resolver that also answers over TLS and HTTPS (RFC 7858, RFC 8484)."""

import argparse
import asyncio
import contextlib
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import renewal
import serving
from dnsmessage import Name
from encrypted.http2 import Http2
from renewal import Agent
from resolver import command
from resolver.hints import HintsError, load_hints
from resolver.server import logger
from serving.tls import ALPN
from stub import AsyncStub
from telemetry import Telemetry, add_arguments, endpoint, log
from tlsreload import CertificateFiles, ReloadError, ReloadingContext

#: Seconds after which an idle connection is closed; a browser can reuse its connection while a user reads a page.
IDLE = 30.0


def main(argv: list[str] | None = None) -> int:
    """Run the resolver until SIGTERM and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="encrypted",
        description="An iterative, caching resolver that also answers over TLS and HTTPS.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m encrypted --listen 127.0.0.1:5300 --hints dns/zones/root.hints --https 127.0.0.1:8443"
        " --cert pair.pem\n"
        "  python -m encrypted --listen 0.0.0.0:53 --hints root.hints --tls 0.0.0.0:853 --https 0.0.0.0:443"
        " --http 0.0.0.0:80 --acme https://ca.example.com/directory --tls-dir /srv/tls --trust /srv/trust/root.pem"
        " --cert-name resolver.example.com",
    )
    command.add_arguments(parser)
    group = parser.add_argument_group("encrypted transport")
    group.add_argument("--tls", type=endpoint, metavar="HOST:PORT", help="answer over TLS here (usual port: 853)")
    group.add_argument("--https", type=endpoint, metavar="HOST:PORT", help="answer over HTTPS here (/dns-query)")
    group.add_argument("--http", type=endpoint, metavar="HOST:PORT", help="answer http-01 challenges here")
    group.add_argument("--cert", type=Path, metavar="FILE", help="chain and key (PEM) to use instead of an ACME CA")
    renewal.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.tls or args.https):
        parser.error("expected --tls or --https; python -m resolver answers over UDP and TCP only")
    log.configure("resolver", args.log_level)
    telemetry = Telemetry("resolver")
    try:
        if args.cert is not None:
            certificate: Files | Agent = Files(args.cert, telemetry)
        else:
            at = ("127.0.0.1" if args.listen[0] in {"0.0.0.0", "::"} else args.listen[0], args.listen[1])
            settings = replace(renewal.from_args(parser, args), as_client=False)  # the resolver is never a TLS client
            certificate = Agent(settings, telemetry, AsyncStub([at], clock=telemetry.clock))
        asyncio.run(_run(args, telemetry, load_hints(args.hints, ipv6=args.ipv6), certificate))
    except (HintsError, ReloadError) as problem:
        print(f"encrypted: error: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"encrypted: error: cannot listen on {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 2
    return 0


async def _run(
    args: argparse.Namespace, telemetry: Telemetry, hints: dict[Name, str], certificate: "Files | Agent"
) -> None:
    resolver = command.server(args, telemetry, hints)
    async with telemetry.serving(args), contextlib.AsyncExitStack() as stack:
        listener = await resolver.start(args.listen)
        stack.push_async_callback(listener.close)
        print(f"listening on {serving.show(listener.address)} (udp, tcp)", flush=True)
        logger.info("serving", hints={str(name): address for name, address in hints.items()})
        if isinstance(certificate, Agent):
            if args.http:  # needed before the first certificate: the CA validates over HTTP
                stack.push_async_callback(
                    (await renewal.answer_challenges(args.http, certificate.challenges.answer)).close
                )
            if not await certificate.enrol():
                return
            certificate.start()
            stack.push_async_callback(certificate.stop)
        else:
            watching = asyncio.create_task(certificate.watch())
            stack.callback(watching.cancel)
        handler = resolver.handler()
        if args.tls:
            over_tls = await serving.start_tls(args.tls, handler, _context(certificate, ALPN), idle=IDLE)
            await _announce(stack, telemetry, "tls", over_tls)
        if args.https:
            over_https = await serving.start_tls(
                args.https, handler, _context(certificate, "h2"), make=Http2, transport="https", idle=IDLE
            )
            await _announce(stack, telemetry, "https", over_https)
        await telemetry.until_stopped()


def _context(certificate: "Files | Agent", alpn: str) -> ssl.SSLContext:
    if isinstance(certificate, Agent):
        return certificate.credentials.server_context(alpn=(alpn,))
    return certificate.context(alpn)


async def _announce(
    stack: contextlib.AsyncExitStack, telemetry: Telemetry, name: str, service: serving.Connections
) -> None:
    stack.push_async_callback(service.close)
    print(f"listening on {serving.show(service.address)} ({name})", flush=True)
    telemetry.health.set(name, ok=True, detail=serving.show(service.address))


class Files:
    """A certificate file that is reloaded when it changes."""

    def __init__(self, pem: Path, telemetry: Telemetry) -> None:
        """Use the chain and key in *pem*; raise `ReloadError` if they cannot be used."""
        self._telemetry = telemetry
        self._contexts = {alpn: ReloadingContext([CertificateFiles(pem, pem)], alpn=[alpn]) for alpn in (ALPN, "h2")}

    def context(self, alpn: str) -> ssl.SSLContext:
        """Return the TLS context for listeners of the protocol *alpn*."""
        return self._contexts[alpn].context

    async def watch(self) -> None:
        """Reload the certificate when the file changes, until the task is cancelled."""

        def refused(error: ReloadError) -> None:
            self._telemetry.health.set("certificate", ok=False, detail=f"still using the old one: {error}")
            logger.error("certificate_refused", error=str(error))

        async with asyncio.TaskGroup() as group:
            for each in self._contexts.values():
                group.create_task(each.watch(on_error=refused))


if __name__ == "__main__":
    sys.exit(main())
