"""``python -m edge``: TLS in front, pooled origins behind."""

import argparse
import asyncio
import gc
import os
import resource
import ssl
import sys
from pathlib import Path

import uvloop

from edge.admission import MAX_CLIENTS, Admission
from edge.proxy import Proxy, logger
from edge.routes import Route, parse_route
from renewal import Agent, add_arguments, from_args, further
from stub import AsyncStub
from telemetry import Telemetry, endpoint, log
from telemetry import add_arguments as add_telemetry_arguments

#: Files beside one for each client: connections to origins, listeners, logs.
OTHER_FILES = 1024


def route(text: str) -> Route:
    """Parse a route (an argparse type)."""
    try:
        return parse_route(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="edge",
        description="A TLS-terminating reverse proxy with connection pools.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m edge --http 127.0.0.1:8080 --upstream /=http://127.0.0.1:9000\n"
        "  python -m edge --https 0.0.0.0:443 --http 0.0.0.0:80 --upstream /=catalog-1.example.com:8443"
        " --acme https://ca.example.com/directory --tls-dir /srv/tls --trust /srv/trust/root.pem --cert-name www.example.com",
    )
    parser.add_argument("--https", type=endpoint, metavar="HOST:PORT", help="pooled upstream connections")
    parser.add_argument(
        "--https-fresh", type=endpoint, metavar="HOST:PORT", help="a fresh upstream connection per request"
    )
    parser.add_argument("--http", type=endpoint, metavar="HOST:PORT", help="plain HTTP, and http-01 challenges")
    parser.add_argument(
        "--upstream", type=route, action="append", required=True, metavar="/PREFIX=[http://]HOST:PORT,…"
    )
    parser.add_argument(
        "--cert", type=Path, metavar="FILE", help="a certificate of your own instead of ACME, with --key"
    )
    parser.add_argument("--key", type=Path, metavar="FILE")
    parser.add_argument(
        "--max-clients",
        type=int,
        default=MAX_CLIENTS,
        metavar="N",
        help=f"client connections at one time (default {MAX_CLIENTS})",
    )
    add_arguments(parser)
    parser.add_argument(
        "--further-cert", type=further, action="append", default=[], metavar="NAME=KIND",
        help="one more certificate over ACME, for clients that ask for NAME, for example rsa.example.com=rsa-2048",
    )  # fmt: skip
    add_telemetry_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.https or args.https_fresh or args.http):
        parser.error("expected at least one of --https, --https-fresh and --http")
    if bool(args.cert) != bool(args.key) or (args.cert and args.acme):
        parser.error("expected --cert and --key together, or --acme")
    if args.further_cert and not args.acme:
        parser.error("expected --acme with --further-cert")
    if args.max_clients < 1:
        parser.error(f"expected --max-clients of at least 1, got {args.max_clients}")
    if not _allow_files(args.max_clients + OTHER_FILES):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OTHER_FILES
        parser.error(
            f"expected --max-clients of at most {most}, as this process may open no more files; got {args.max_clients}"
        )
    log.configure("edge", args.log_level)
    telemetry = Telemetry("edge")
    agent = Agent(from_args(parser, args), telemetry) if args.acme else None
    if (args.https or args.https_fresh) and agent is None and not args.cert:
        parser.error("expected --acme, or --cert and --key, with --https")
    try:
        static = _static(args) if args.cert else None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(args, telemetry, agent, static))
    except (OSError, ssl.SSLError) as error:
        print(f"edge: error: {error}", file=sys.stderr)
        return 2
    return 0


def _allow_files(count: int) -> bool:
    """Raise this process's limit of open files to *count* where it is lower; return False when we may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > hard != resource.RLIM_INFINITY:
        return False
    if count > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return True


def _static(args: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(args.cert, args.key)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _run(
    args: argparse.Namespace, telemetry: Telemetry, agent: Agent | None, static: ssl.SSLContext | None
) -> None:
    stub = agent.stub if agent is not None else AsyncStub(clock=telemetry.clock)
    plain = ssl.create_default_context(cafile=args.trust) if args.trust and agent is None else None
    client_context = agent.credentials.client_context if agent is not None else lambda: plain
    challenge = agent.challenges.answer if agent is not None else lambda _: None
    admission = Admission(args.max_clients)
    proxy = Proxy(telemetry, args.upstream, stub, client_context, challenge, admission=admission)
    async with telemetry.serving(args):
        if args.http:  # first: the CA asks here before there is a certificate
            await _listen(proxy, args.http, "http")
        if agent is not None and not await agent.enrol():
            await proxy.close()
            return
        context = agent.credentials.server_context() if agent is not None else static
        if args.https:
            await _listen(proxy, args.https, "https", context=context)
        if args.https_fresh:
            await _listen(proxy, args.https_fresh, "https-fresh", context=context, pooled=False)
        if agent is not None:
            agent.credentials.on_change(proxy.certificate_changed)
            agent.start()
        others = [agent.beside(*each) for each in args.further_cert] if agent is not None else []
        joining = asyncio.gather(*(_join(each) for each in others))
        logger.info("serving", routes=[f"{r.prefix}={','.join(map(str, r.targets))}" for r in proxy.routes])
        # What has been made by now stays: the collector need not look at it again for every few requests.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await telemetry.until_stopped()
        await joining
        for each in (*others, *([agent] if agent is not None else [])):
            await each.stop()
        await proxy.close()


async def _join(agent: Agent) -> None:
    """Get a further certificate, and keep it fresh from then on."""
    if await agent.enrol():
        agent.start()


async def _listen(
    proxy: Proxy, address: tuple[str, int], name: str, *, context: ssl.SSLContext | None = None, pooled: bool = True
) -> None:
    try:
        host, port = await proxy.listen(address, name, context=context, pooled=pooled)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error.strerror
        raise OSError(f"cannot listen on {address[0]}:{address[1]}: {reason}") from None
    print(f"listening on {host}:{port} ({name})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
