"""Command line of the edge server, ``python -m edge``."""

import argparse
import asyncio
import gc
import os
import resource
import signal
import ssl
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvloop

from edge.admission import MAX_CLIENTS
from edge.pages import merged_pools, merged_purges
from edge.proxy import Proxy, logger
from edge.routes import Route, parse_route
from edge.settings import Settings, SettingsError, load
from renewal import Agent, RehearsalAgent, add_arguments, additional, from_args
from stub import AsyncStub
from telemetry import Telemetry, add_workers, endpoint, log, workers
from telemetry import add_arguments as add_telemetry_arguments
from telemetry.front import Rules
from telemetry.tap import merged as merged_taps
from telemetry.workers import Worker
from tlsreload import CertificateFiles, ReloadError, ReloadingContext

#: File descriptors needed in addition to one per client: origin connections, listeners and logs.
OTHER_FILES = 1024
#: ALPN protocols offered to clients, in order of preference.
ALPN = ("h2", "http/1.1")
#: Session tickets that a TLS 1.3 client gets with a full handshake. OpenSSL's default of two costs 14 µs of CPU and 270
#: bytes more. With one ticket, a client that opens several connections simultaneously can resume its session on one of
#: them.
TICKETS = 1
#: Minimum remaining lifetime of a certificate, as a share of its total; below it, /health reports a failure.
LEFT = 0.1
#: How admin requests are distributed to several workers and their responses merged: the first worker renews the
#: certificate; pool counts are summed.
RULES = Rules(
    first=("/admin/renew", "/admin/certificate", "/admin/schedule"),
    merges={"/admin/pool/purge": merged_purges, "/admin/pool": merged_pools, "/admin/tap": merged_taps},
)
#: Interval between checks of certificate files and remaining lifetimes, in seconds.
LOOK = 5.0


def route(text: str) -> Route:
    """Parse a route argument; used as an argparse type."""
    try:
        return parse_route(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str] | None = None) -> int:
    """Run the edge until SIGTERM; SIGHUP reloads settings and certificates."""
    parser = _parser()
    args = parser.parse_args(argv)
    settings = _check(parser, args)
    log.configure("edge", args.log_level)
    telemetry = Telemetry("edge")
    agent = RehearsalAgent(from_args(parser, args), telemetry, shared=args.workers > 1) if args.acme else None
    if (args.https or args.https_fresh) and agent is None and not args.cert:
        parser.error("expected --acme, or --cert and --key, with --https")

    def work(worker: Worker) -> int:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(args, settings, telemetry, agent, static, context, worker))
        except (OSError, ssl.SSLError, ReloadError) as error:
            return _failed(error)
        return 0

    def reload() -> None:  # ignores invalid files, because the workers report them
        nonlocal settings
        with suppress(SettingsError):
            settings = _reloaded(args)
        if static is not None:
            with suppress(ReloadError):
                static.reload()

    try:
        static = _static(args) if args.cert else None
        context = static.context if static is not None else None
        if agent is not None:
            context = agent.credentials.server_context(args.client_ca, ALPN)
        if context is not None:
            context.num_tickets = TICKETS
        if args.workers > 1:
            for name in ("https", "https_fresh", "http"):
                if (address := getattr(args, name)) is not None:
                    setattr(args, name, _reserved(address))
        return workers.run(args, work, RULES, reload)
    except (OSError, ssl.SSLError, ReloadError) as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    print(f"edge: error: {error}", file=sys.stderr)
    return 2


def _reserved(address: tuple[str, int]) -> tuple[str, int]:
    try:
        return workers.reserve(address)
    except OSError as error:
        raise _cannot_listen(address, error) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge",
        description="A TLS-terminating reverse proxy with connection pools.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m edge --http 127.0.0.1:8080 --upstream /=http://127.0.0.1:9000\n"
        "  python -m edge --https 0.0.0.0:443 --http 0.0.0.0:80 --settings edge.toml"
        " --acme https://ca.example.com/directory --tls-dir /srv/tls"
        " --trust /srv/trust/root.pem --cert-name www.example.com",
    )
    add = parser.add_argument
    add("--https", type=endpoint, metavar="HOST:PORT", help="pooled upstream connections")
    add("--https-fresh", type=endpoint, metavar="HOST:PORT", help="a fresh upstream connection per request")
    add("--http", type=endpoint, metavar="HOST:PORT", help="plain HTTP, and http-01 challenges")
    add(
        "--upstream", type=route, action="append", default=[], metavar="/PREFIX=[http://]HOST:PORT,…", help="repeatable"
    )
    add("--settings", type=Path, metavar="FILE", help="routes, time-outs and limits (TOML); read again on SIGHUP")
    add("--cert", type=Path, action="append", default=[], metavar="FILE",
        help="a certificate of your own instead of ACME, with --key; "
             "repeatable: clients choose by name (SNI)")  # fmt: skip
    add("--key", type=Path, action="append", default=[], metavar="FILE", help="one for each --cert")
    add("--client-ca", type=Path, metavar="FILE", help="roots (PEM): clients must show a certificate that leads to one")
    add("--max-clients", type=int, metavar="N", help=f"client connections at one time (default {MAX_CLIENTS})")
    add_workers(parser)
    add_arguments(parser)
    add("--additional-cert", type=additional, action="append", default=[], metavar="NAME=KIND",
        help="one more certificate over ACME, for clients that ask for NAME, "
             "for example rsa.example.com=rsa-2048")  # fmt: skip
    add_telemetry_arguments(parser)
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """Return the settings; exit with code 2 if the settings are invalid or the arguments are inconsistent."""
    if not (args.https or args.https_fresh or args.http):
        parser.error("expected at least one of --https, --https-fresh and --http")
    if len(args.cert) != len(args.key) or (args.cert and args.acme):
        parser.error("expected one --key for each --cert, or --acme")
    if args.additional_cert and not args.acme:
        parser.error("expected --acme with --additional-cert")
    if args.max_clients is not None and args.max_clients < 1:
        parser.error(f"expected --max-clients of at least 1, got {args.max_clients}")
    try:
        settings = _settings(args)
    except SettingsError as error:  # omit the usage text, because the mistake is in the file
        parser.exit(_failed(error))
    if not settings.routes:
        parser.error("expected --upstream, or --settings with a [[route]]")
    if not _allow_files(settings.clients.max + OTHER_FILES):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OTHER_FILES
        got = settings.clients.max
        parser.error(f"expected --max-clients of at most {most}, as this process may open no more files; got {got}")
    return settings


def _settings(args: argparse.Namespace) -> Settings:
    """Load the settings file and return its settings, combined with the command line.

    Raises:
        SettingsError: the file cannot be read or is invalid.
    """
    settings = load(args.settings) if args.settings else Settings()
    clients = settings.clients if args.max_clients is None else replace(settings.clients, max=args.max_clients)
    taken = {each.prefix for each in args.upstream}
    if twice := [each.prefix for each in settings.routes if each.prefix in taken]:
        raise SettingsError(f"{args.settings}: expected routes other than those of --upstream, got {', '.join(twice)}")
    return replace(settings, clients=clients, routes=(*settings.routes, *args.upstream))


def _allow_files(count: int) -> bool:
    """Raise the soft limit on open files to at least *count*; return False if that is not permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > hard != resource.RLIM_INFINITY:
        return False
    if count > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return True


def _static(args: argparse.Namespace) -> ReloadingContext:
    pairs = [CertificateFiles(*each) for each in zip(args.cert, args.key, strict=True)]
    return ReloadingContext(pairs, client_ca=args.client_ca, alpn=ALPN)


async def _run(
    args: argparse.Namespace,
    settings: Settings,
    telemetry: Telemetry,
    agent: Agent | None,
    static: ReloadingContext | None,
    context: ssl.SSLContext | None,
    worker: Worker,
) -> None:
    if agent is not None:
        agent.renews = worker.first
    stub = agent.stub if agent is not None else AsyncStub(clock=telemetry.clock)
    plain = ssl.create_default_context(cafile=args.trust) if args.trust and agent is None else None
    client_context = agent.credentials.client_context if agent is not None else lambda: plain
    challenge = agent.challenges.answer if agent is not None else lambda _: None
    revoked = agent.check_revocations() if agent is not None else frozenset[int]()
    proxy = Proxy(telemetry, settings, stub, client_context, challenge, shared=args.workers > 1, revoked=revoked)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, args, proxy, static)
    if worker.again:  # the files may have changed since the supervisor loaded them
        _reload(args, proxy, static)
    async with telemetry.serving(args):
        if args.http:  # start HTTP first: the CA validates over HTTP before a certificate exists
            await _listen(proxy, args.http, "http", worker)
        if agent is not None and not await agent.enrol():
            await proxy.close()
            return
        if args.https:
            await _listen(proxy, args.https, "https", worker, context=context)
        if args.https_fresh:
            await _listen(proxy, args.https_fresh, "https-fresh", worker, context=context, pooled=False)
        watching = asyncio.create_task(_watch(static, telemetry)) if static is not None else None
        if agent is not None:
            agent.credentials.on_change(proxy.certificate_changed)
            agent.on_revocation = proxy.revocations_changed
            agent.start()
        others = [agent.additional(*each) for each in args.additional_cert] if agent is not None else []
        joining = asyncio.gather(*(_join(each) for each in others))
        logger.info("serving", routes=[f"{r.prefix}={','.join(map(str, r.targets))}" for r in settings.routes])
        # Exclude the objects created so far from garbage collection; they live as long as the process.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await telemetry.until_stopped()
        if watching is not None:
            watching.cancel()
        await joining
        for each in (*others, *([agent] if agent is not None else [])):
            await each.stop()
        await proxy.close()


def _reloaded(args: argparse.Namespace) -> Settings:
    """Reload the settings file and return its settings, combined with the command line.

    Raises:
        SettingsError: the file is invalid, or there is no route.
    """
    settings = _settings(args)
    if not settings.routes:
        raise SettingsError(f"{args.settings}: expected a [[route]], got none")
    return settings


def _reload(args: argparse.Namespace, proxy: Proxy, static: ReloadingContext | None) -> None:
    """Reload settings and certificates; invalid ones are ignored and reported in /health."""
    health = proxy.telemetry.health
    try:
        settings = _reloaded(args)
    except SettingsError as error:
        logger.error("settings_refused", reason=str(error))
        health.set("settings", ok=False, detail=str(error))
    else:
        proxy.reconfigure(settings)
        logger.info("settings_reloaded", routes=len(settings.routes))
        health.set("settings", ok=True, detail=str(args.settings or "command line"))
    if static is not None:
        try:
            static.reload()
        except ReloadError as error:
            _certificate_refused(proxy.telemetry, error)
        else:
            _tell(static, proxy.telemetry)


async def _watch(static: ReloadingContext, telemetry: Telemetry) -> None:
    """Reload certificate files when they change, and report remaining lifetimes in /health."""
    static.on_change(lambda: _tell(static, telemetry))
    _tell(static, telemetry)
    following = asyncio.create_task(static.watch(LOOK, lambda error: _certificate_refused(telemetry, error)))
    try:
        while True:
            await asyncio.sleep(LOOK)  # interval between certificate checks
            now = telemetry.clock.time()
            if any(now > each.not_after - LEFT * (each.not_after - each.not_before) for each in static.certificates):
                _tell(static, telemetry)
    finally:
        following.cancel()


def _tell(static: ReloadingContext, telemetry: Telemetry) -> None:
    now = telemetry.clock.time()
    soonest = min(static.certificates, key=lambda each: each.not_after)
    left = soonest.not_after - now
    ok = left > LEFT * (soonest.not_after - soonest.not_before)
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(soonest.not_after))
    telemetry.health.set("certificate", ok=ok, detail=f"{', '.join(soonest.names)} is valid until {until}")


def _certificate_refused(telemetry: Telemetry, error: ReloadError) -> None:
    logger.error("certificate_refused", reason=str(error))
    telemetry.health.set("certificate", ok=False, detail=str(error))


async def _join(agent: Agent) -> None:
    """Obtain an additional certificate, then keep it renewed."""
    if await agent.enrol():
        agent.start()


async def _listen(
    proxy: Proxy,
    address: tuple[str, int],
    name: str,
    worker: Worker,
    *,
    context: ssl.SSLContext | None = None,
    pooled: bool = True,
) -> None:
    try:
        host, port = await proxy.listen(address, name, context=context, pooled=pooled)
    except OSError as error:
        raise _cannot_listen(address, error) from None
    if worker.announces:
        print(f"listening on {host}:{port} ({name})", flush=True)


def _cannot_listen(address: tuple[str, int], error: OSError) -> OSError:
    reason = os.strerror(error.errno) if error.errno else error.strerror
    return OSError(f"cannot listen on {address[0]}:{address[1]}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
