"""Test support: renewal agents that use the CA of `tests.acme_server`, and a TLS server with an agent's certificate."""

import asyncio
import contextlib
import ssl
from pathlib import Path

from cryptography import x509

from renewal import Agent, RehearsalAgent, Settings
from telemetry import Telemetry
from tests.acme_server.conftest import Lab, lab

__all__ = ["agent_for", "issued_at", "lab", "one_request", "serve"]


def agent_for(lab: Lab, folder: str = "tls", *names: str) -> Agent:
    (lab.folder / folder).mkdir(exist_ok=True)
    settings = Settings(lab.directory, lab.folder / folder, lab.trust, names or ("www.example.com",))
    agent = RehearsalAgent(settings, Telemetry("test"), lab.stub)

    def put(token: str, text: str | None) -> None:
        real_put(token, text)
        lab.answers.pop(token, None) if text is None else lab.answers.update({token: text})

    real_put = agent.challenges.put
    agent.challenges.put = put  # type: ignore[method-assign, assignment] # the test's web server serves http-01
    return agent


def issued_at(agent: Agent) -> float:
    """Return the time at which *agent* received its certificate."""
    assert agent.lifecycle.held is not None
    return agent.lifecycle.held.issued


async def serve(agent: Agent, client_ca: Path | None = None) -> tuple[asyncio.Server, set[asyncio.StreamWriter]]:
    writers: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writers.discard(writer)
            writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0, ssl=agent.credentials.server_context(client_ca)), writers


async def one_request(port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    try:
        writer.write(b"ping\n")
        assert await reader.readline() == b"ping\n"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"
