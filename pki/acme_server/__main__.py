"""Command line of the CA's ACME server, ``python -m acme_server``."""

import argparse
import asyncio
import gc
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from acme_server.external_accounts import load_keys
from acme_server.issuing_files import IssuingFiles
from acme_server.leaves import LONGEST_LIFETIME, SHORTEST_LIFETIME
from acme_server.own_certificate import OwnCertificate
from acme_server.rate_limit import RateLimit
from acme_server.server import AcmeServer, Settings, logger
from acme_server.watch import Watch
from authority import AuthorityError, Store
from authority.profiles import load_profiles
from stub import AsyncStub
from telemetry import Telemetry, add_arguments, endpoint, log


def lifetime(text: str) -> float:
    """Parse a leaf lifetime in seconds (an argparse type); reject values outside the supported range."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not SHORTEST_LIFETIME <= value <= LONGEST_LIFETIME:
        raise argparse.ArgumentTypeError(
            f"expected {SHORTEST_LIFETIME:g} to {LONGEST_LIFETIME:g} seconds, got {text!r}"
        )
    return value


def order_limit(text: str) -> RateLimit:
    """Parse ``N/SECONDS``, a limit on new orders per account (an argparse type)."""
    orders, _, window = text.partition("/")
    if not (orders.isdecimal() and window.isdecimal() and int(orders) and int(window)):
        raise argparse.ArgumentTypeError(f"expected N/SECONDS, for example 300/10800; got {text!r}")
    return RateLimit(int(orders), float(window))


def main(argv: list[str] | None = None) -> int:
    """Run the ACME server until SIGTERM; return 0, or 2 if the settings are invalid or listening fails."""
    parser = argparse.ArgumentParser(
        prog="acme_server",
        description="An ACME server (RFC 8555) on top of the lab's CA.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m acme_server --listen 127.0.0.1:14000 --ca ca --passphrase-file secret/passphrase "
        "--trust trust/root.pem --name localhost.test --resolver 127.0.0.1:5300\n"
        "  python -m acme_server … --lifetime 60 --http01-port 8080 --caa ca.example.com --admin 127.0.0.1:9900",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="HTTPS address")
    parser.add_argument("--ca", type=Path, required=True, metavar="DIR", help="issuing key, certificate and store")
    parser.add_argument(
        "--passphrase-file", type=Path, required=True, metavar="FILE", help="passphrase of the issuing key"
    )
    parser.add_argument("--trust", type=Path, required=True, metavar="FILE", help="root certificate, checked at start")
    parser.add_argument("--name", required=True, help="our own host name")
    parser.add_argument(
        "--resolver",
        type=endpoint,
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="resolver for validations (repeatable: validations must succeed through every resolver)",
    )
    parser.add_argument(
        "--lifetime", type=lifetime, default=3600.0, metavar="SECONDS", help="leaf lifetime (default 3600)"
    )
    parser.add_argument("--http01-port", type=int, default=80, metavar="PORT")
    parser.add_argument("--dns01-port", type=int, default=53, metavar="PORT")
    parser.add_argument(
        "--http",
        type=endpoint,
        metavar="HOST:PORT",
        help="HTTP address for CRL and OCSP; leaves contain the URLs",
    )
    parser.add_argument("--profiles", type=Path, metavar="FILE", help="certificate profiles (default: one, peer)")
    parser.add_argument(
        "--order-limit",
        type=order_limit,
        metavar="N/SECONDS",
        help="maximum of new orders per account",
    )
    parser.add_argument(
        "--external-accounts",
        type=Path,
        metavar="FILE",
        help="require external account binding; lines KID KEY, the key in base64url",
    )
    parser.add_argument("--caa", metavar="NAME", help="check CAA records for this issuer name")
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("acme_server", args.log_level)
    try:
        profiles = load_profiles(args.profiles)
        external = None if args.external_accounts is None else load_keys(args.external_accounts)
        issuing = IssuingFiles(args.ca, args.passphrase_file)
        if not args.trust.exists():
            raise AuthorityError(f"{args.trust}: expected the root certificate; run the ceremony first")
        store = Store(args.ca / "store.sqlite")
    except AuthorityError as error:
        print(f"acme_server: error: {error}", file=sys.stderr)
        return 2
    telemetry = Telemetry("acme_server")
    host, port = args.listen
    base = f"https://{args.name}" + ("" if port == 443 else f":{port}")
    http = None
    if args.http is not None:
        http = f"http://{args.name}" + ("" if args.http[1] == 80 else f":{args.http[1]}")
    settings = Settings(
        base,
        args.lifetime,
        args.http01_port,
        args.caa,
        http_base=http,
        dns_port=args.dns01_port,
        profiles=profiles,
        order_limit=args.order_limit,
        external_accounts=external,
    )
    stubs = [AsyncStub([each]) for each in args.resolver]
    try:
        server = AcmeServer(telemetry, issuing.signing, store, stubs, settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(args, telemetry, server, issuing))
    except AuthorityError as error:
        print(f"acme_server: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"acme_server: error: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 2
    finally:
        store.close()
    return 0


async def _run(args: argparse.Namespace, telemetry: Telemetry, server: AcmeServer, issuing: IssuingFiles) -> None:
    async with telemetry.serving(args):
        server.published.keep(issuing.issuers.values())
        own = OwnCertificate(server.leaves, args.name, args.ca)
        server.published.renew_if_due(telemetry.clock.time())
        runner = web.AppRunner(server.application, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await runner.setup()

        async def listen() -> web.TCPSite:
            site = web.TCPSite(runner, *args.listen, ssl_context=own.context, reuse_address=True)
            await site.start()
            return site

        plain = web.AppRunner(
            server.published.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await plain.setup()
        if args.http is not None:
            await web.TCPSite(plain, *args.http, reuse_address=True).start()
            print(f"listening on {args.http[0]}:{args.http[1]} (http)", flush=True)
        watch = Watch(server, own, await listen(), listen, issuing)
        print(f"listening on {args.listen[0]}:{args.listen[1]} (https)", flush=True)
        telemetry.health.set("listener", ok=True, detail=server.settings.base)
        resumed = server.validations.resume()
        logger.info(
            "serving", base=server.settings.base, lifetime_s=server.leaves.lifetime, validations_resumed=resumed
        )
        gc.freeze()  # garbage collections need not visit the modules' objects, which live until the process ends
        watching = asyncio.create_task(watch.run())
        await telemetry.until_stopped()
        watching.cancel()
        await server.validations.close()
        await plain.cleanup()
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
