"""``python -m http3``: serve HTTP/3 with a certificate from the CA or from a file."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import cast

from aioquic.asyncio.server import QuicServer, serve

import renewal
from http3.server import Connection, Counts, Tickets, configuration
from renewal import Agent, RehearsalAgent
from telemetry import Telemetry, add_arguments, endpoint, log

logger = log.get("http3")


async def _listen(args: argparse.Namespace, telemetry: Telemetry, pem: bytes) -> QuicServer:
    tickets, counts = Tickets(), Counts(telemetry.metrics)
    host, port = args.listen
    server = await serve(
        host, port, configuration=configuration(pem),
        create_protocol=lambda quic, stream_handler=None: Connection(quic, counts),  # noqa: ARG005 - required by aioquic
        session_ticket_fetcher=tickets.take, session_ticket_handler=tickets.add,
    )  # fmt: skip
    transport = cast("asyncio.DatagramTransport", server._transport)  # noqa: SLF001 - no public API for the bound port
    port = transport.get_extra_info("sockname")[1]
    print(f"listening on {host}:{port} (quic)", flush=True)
    telemetry.health.set("quic", True, f"{host}:{port}")
    return server


async def _run(args: argparse.Namespace, telemetry: Telemetry, agent: Agent | None) -> None:
    async with telemetry.serving(args):
        challenges = server = None
        try:
            if agent is None:
                server = await _listen(args, telemetry, args.cert.read_bytes())
            else:
                if args.http:  # start HTTP before requesting the first certificate, because the CA validates over HTTP
                    challenges = await renewal.answer_challenges(args.http, agent.challenges.answer)
                if not await agent.enrol():
                    return
                agent.start()
                server = await _listen(args, telemetry, agent.credentials.pair.pem)
                agent.credentials.on_change(lambda _: _reload(server, agent))
            await telemetry.until_stopped()
        finally:
            if agent is not None:
                await agent.stop()
            if challenges is not None:
                await challenges.close()
            if server is not None:
                server.close()


def _reload(server: QuicServer, agent: Agent) -> None:
    """Use the renewed certificate for new connections."""
    server._configuration = configuration(agent.credentials.pair.pem)  # noqa: SLF001 - aioquic has no setter for it


def main(argv: list[str] | None = None) -> int:
    """Run the service until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="http3",
        description="An HTTP/3 server: /whoami, and /bytes/N for responses of N bytes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m http3 --listen 127.0.0.1:8443 --cert pair.pem\n"
        "  python -m http3 --listen 0.0.0.0:443 --http 0.0.0.0:80 --acme https://ca.example.com/directory"
        " --tls-dir /srv/tls --trust /srv/trust/root.pem --cert-name quic.example.com",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="UDP port")
    parser.add_argument("--http", type=endpoint, metavar="HOST:PORT", help="answer http-01 challenges here")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="chain and key (PEM) to use instead of an ACME CA")
    renewal.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("http3", args.log_level)
    logging.getLogger("quic").setLevel(logging.WARNING)  # aioquic writes several INFO lines per connection
    telemetry = Telemetry("http3")
    try:
        agent = None if args.cert else RehearsalAgent(renewal.from_args(parser, args), telemetry)
        asyncio.run(_run(args, telemetry, agent))
    except (OSError, ValueError) as error:
        print(f"http3: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
